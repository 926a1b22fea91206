// Runs once for each part of the demo: `element` is its root, `trigger` reports what a visitor does.
const canvas = element.querySelector('canvas');
const pen = canvas?.getContext('2d');
const AFTER_STROKE = 450;  // ms without a pen before the systems are asked: most digits of two strokes are one question
const AGAIN = 1000;        // ms without an answer before they are asked again, as Gradio may drop an event; then twice as long, ...
let pointer = null;   // id of the pen, finger or mouse that is drawing
let last = null;      // where it is
let own = false;      // whether the box holds a drawing that a stroke adds to; an example is replaced by it
let turn = 0;         // number of what the box holds; an answer says which number it is about
let counted = 0;      // numbers given so far
let question = null;  // asks about what the box holds
let waiting = null;   // timer until it is asked, or asked again
let sending = null;    // an uploaded digit that waits for its answer: {turn, image}

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

// The box holds something new: answers to what it held before are hidden from now on.
function begin(next) {
  turn = ++counted;
  question = next;
  clearTimeout(waiting);
  hideOldAnswers();
}

function ask(later = 0, again = AGAIN) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (canvas.checkVisibility()) question();  // not while another tab shows its own answers
    ask(again, 2 * again);  // until the answer stops it
  }, later);
}

function hideOldAnswers() {
  let answered = true;
  for (const part of document.querySelectorAll('#results [data-turn], #patches [data-turn]')) {
    const about = Number(part.dataset.turn);
    if (about === sending?.turn && about > turn) {
      turn = about;
      question = null;
      show(sending.image);
      press(null);
    }
    answered &&= about === turn;
    part.classList.toggle('old', about !== turn);
  }
  if (answered && pointer === null) clearTimeout(waiting);
}

const sendDrawing = () => trigger('input', {image: canvas.toDataURL('image/png'), turn});

function take(file) {
  if (!file) return;
  if (file.size > Number(element.querySelector('[data-most-bytes]').dataset.mostBytes)) return trigger('input', {image: null});
  const reader = new FileReader();
  reader.onload = () => {
    const label = element.querySelector('select');
    if (label) label.selectedIndex = 0;
    if (!canvas) return trigger('input', {image: reader.result});
    sending = {turn: ++counted, image: new Image()};
    sending.image.src = reader.result;
    trigger('input', {image: reader.result, turn: sending.turn});
  };
  reader.readAsDataURL(file);
}

element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (button) {
    press(button);
    const pick = {pick: Number(button.dataset.pick), group: Number(button.dataset.group ?? 0)};
    if (!canvas) return trigger('select', pick);
    show(button.querySelector('img'));
    begin(() => trigger('select', {...pick, turn}));
    ask();
  }
  if (event.target.closest('[data-clear]')) {
    wipe(true);
    press(null);
    own = true;
    begin(sendDrawing);
    ask();
  }
});

element.addEventListener('change', event => {
  if (event.target.type === 'file') {
    take(event.target.files[0]);
    event.target.value = '';  // the same file may be chosen again
  }
  if (event.target.matches('select')) trigger('select', {label: event.target.selectedIndex});
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
    begin(sendDrawing);
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
      ask(AFTER_STROKE);
    });
  const chosen = element.querySelector('[aria-pressed="true"] img');
  wipe(!chosen);
  if (chosen) chosen.complete && chosen.naturalWidth ? show(chosen) : chosen.addEventListener('load', () => { if (!own) show(chosen); });
  new MutationObserver(hideOldAnswers).observe(document.querySelector('#bench'), {childList: true, subtree: true});
}
