// Runs once for each part of the demo: `element` is its root, `trigger` reports what a visitor does.
const canvas = element.querySelector('canvas');
const pen = canvas?.getContext('2d');
const label = element.querySelector('select');
const AFTER_STROKE = 450;  // ms without a pen before the systems are asked: most digits of two strokes are one question
const AGAIN = 1000;        // ms without an answer before they are asked again, as Gradio may drop an event; then twice as long, ...
let pointer = null;   // id of the pen, finger or mouse that is drawing
let last = null;      // where it is
let own = false;      // whether the box holds a drawing that a stroke adds to; an example is replaced by it
let held = 0;         // number of what the box holds, of which other answers are hidden, or of the image that a class is named for
let asked = null;     // what waits for its answer: {turn, answered}
let waiting = null;   // timer until it is asked, or asked again

// What a visitor does is numbered over all parts; an answer says which number it is about.
const number = () => window.turns = (window.turns ?? 0) + 1;

function wipe(empty) {
  pen.fillStyle = 'black';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  canvas.parentElement.classList.toggle('empty', empty);
}

function show(image) {  // all of it, in the middle
  wipe(false);
  own = false;
  if (!image.naturalWidth) return;  // of a kind that the browser cannot show
  const scale = Math.min(canvas.width / image.naturalWidth, canvas.height / image.naturalHeight);
  const width = scale * image.naturalWidth, height = scale * image.naturalHeight;
  pen.imageSmoothingEnabled = scale < 1;
  pen.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

function press(button) {
  for (const other of element.querySelectorAll('[data-pick]')) other.setAttribute('aria-pressed', other === button);
}

function hideOldAnswers() {
  for (const part of document.querySelectorAll('#results [data-turn], #patches [data-turn]'))
    part.classList.toggle('old', Number(part.dataset.turn) !== held);
}

// The box holds something new: what it held before is not asked about any more.
function begin() {
  held = number();
  asked = null;
  clearTimeout(waiting);
  hideOldAnswers();
}

// Send what a visitor did, and again until it is answered; `answered` is told whether without an error.
function ask(event, data, {turn = number(), answered = null, later = 0} = {}) {
  clearTimeout(waiting);
  asked = {turn, answered};
  const send = again => {
    if (element.checkVisibility()) trigger(event, {...data, turn});  // not while another tab shows its own answers
    waiting = setTimeout(send, again, 2 * again);
  };
  waiting = setTimeout(send, later, AGAIN);
}

function hear() {
  const note = document.querySelector('#note [data-turn]');
  if (asked && Number(note?.dataset.turn) === asked.turn) {
    clearTimeout(waiting);
    asked.answered?.(note.textContent === '');
    asked = null;
  }
  if (canvas) hideOldAnswers();
}

const askDrawing = later => ask('input', {image: canvas.toDataURL('image/png')}, {turn: held, later});

function take(file) {
  if (!file) return;
  const most = Number(element.querySelector('[data-most-bytes]').dataset.mostBytes);
  if (file.size > most) return upload(null);
  const reader = new FileReader();
  reader.onload = () => upload(reader.result);
  reader.readAsDataURL(file);
}

function upload(data) {
  const turn = number(), image = new Image();
  image.src = data ?? '';
  if (label) label.disabled = true;  // until the image is there that it names
  const answered = accepted => {
    if (accepted) held = turn;
    if (label) label.disabled = !held;
    if (label && accepted) label.selectedIndex = 0;
    if (!canvas || !accepted) return;
    show(image);
    press(null);
  };
  ask('input', {image: data}, {turn, answered});
}

element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (button) {
    press(button);
    const pick = {pick: Number(button.dataset.pick), group: Number(button.dataset.group ?? 0)};
    if (!canvas) return ask('select', pick);
    show(button.querySelector('img'));
    begin();
    ask('select', pick, {turn: held});
  }
  if (event.target.closest('[data-clear]')) {
    wipe(true);
    press(null);
    own = true;
    begin();
    askDrawing(0);
  }
});

element.addEventListener('change', event => {
  if (event.target.type === 'file') {
    take(event.target.files[0]);
    event.target.value = '';  // the same file may be chosen again
  }
  if (event.target === label) ask('select', {label: label.selectedIndex});
});

const drop = element.querySelector('.drop');
drop?.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over'); });
drop?.addEventListener('dragleave', () => drop.classList.remove('over'));
drop?.addEventListener('drop', event => {
  event.preventDefault();
  drop.classList.remove('over');
  take(event.dataTransfer.files[0]);
});

if (canvas) {
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
  };
  const drawTo = event => {
    const here = at(event);
    Object.assign(pen, {strokeStyle: 'white', lineWidth: 30, lineCap: 'round'});
    pen.beginPath();
    pen.moveTo(...(last ?? here));
    pen.lineTo(...here);
    pen.stroke();
    last = here;
  };
  canvas.addEventListener('pointerdown', event => {
    if (pointer !== null) return;  // one finger draws
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    if (!own) wipe(false);
    canvas.parentElement.classList.remove('empty');
    own = true;
    press(null);
    begin();
    drawTo(event);
  });
  canvas.addEventListener('pointermove', event => {
    if (event.pointerId !== pointer) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) drawTo(each);
    drawTo(event);
  });
  for (const name of ['pointerup', 'pointercancel', 'lostpointercapture'])
    canvas.addEventListener(name, event => {
      if (event.pointerId !== pointer) return;
      if (name === 'pointerup') drawTo(event);
      pointer = last = null;
      askDrawing(AFTER_STROKE);
    });
  const chosen = element.querySelector('[aria-pressed="true"] img');
  wipe(!chosen);
  if (chosen) chosen.complete && chosen.naturalWidth ? show(chosen) : chosen.addEventListener('load', () => { if (!own) show(chosen); });
}
new MutationObserver(hear).observe(document.querySelector('#bench'), {childList: true, attributeFilter: ['data-turn'], subtree: true});
element.querySelector('[aria-busy]')?.removeAttribute('aria-busy');  // it listens from now on
