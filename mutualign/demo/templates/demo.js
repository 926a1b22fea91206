// Runs once for each part of the demo: `element` is its root, `trigger` reports what a visitor does.
const MOST_BYTES = 5e6;
const canvas = element.querySelector('canvas');
const pen = canvas?.getContext('2d');
let last = null;      // where the pen is, while it is down
let own = false;      // whether the box holds a drawing that a stroke adds to; an example is replaced by it
let waiting = null;   // timer until the drawing is sent
let turn = 0;         // number of the drawing that was sent last

function wipe(empty) {
  pen.fillStyle = 'black';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  canvas.parentElement.classList.toggle('empty', empty);
}

function show(image) {  // all of it, in the middle
  wipe(false);
  const scale = Math.min(canvas.width / image.naturalWidth, canvas.height / image.naturalHeight);
  const width = scale * image.naturalWidth, height = scale * image.naturalHeight;
  pen.imageSmoothingEnabled = scale < 1;
  pen.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  own = false;
}

function press(button) {
  for (const other of element.querySelectorAll('[data-pick]')) other.setAttribute('aria-pressed', other === button);
}

// Send the drawing, and send it again if the answer shown later is not about it: Gradio may drop an event that comes
// while another one is being answered.
function send(later, again = 3) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    waiting = null;
    turn += 1;
    trigger('input', {image: canvas.toDataURL('image/png'), turn});
    if (again) waiting = setTimeout(() => { if (unanswered()) send(0, again - 1); }, 1000);
  }, later);
}

function unanswered() {
  const shown = document.querySelector('#results [data-turn]');
  return own && shown && Number(shown.dataset.turn) !== turn;
}

function take(file) {
  if (!file) return;
  if (file.size > MOST_BYTES) return trigger('input', {image: null});
  const reader = new FileReader();
  reader.onload = () => {
    trigger('input', {image: reader.result});
    press(null);
    if (!canvas) return;
    const image = new Image();
    image.onload = () => show(image);
    image.src = reader.result;
  };
  reader.readAsDataURL(file);
}

element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (button) {
    press(button);
    clearTimeout(waiting);
    if (canvas) show(button.querySelector('img'));
    trigger('select', {pick: Number(button.dataset.pick), group: Number(button.dataset.group ?? 0)});
  }
  if (event.target.closest('[data-clear]')) {
    wipe(true);
    press(null);
    own = true;
    send(0);
  }
});

element.addEventListener('change', event => {
  if (event.target.type !== 'file') return;
  take(event.target.files[0]);
  event.target.value = '';  // the same file may be chosen again
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
  const draw = (from, to) => {
    Object.assign(pen, {strokeStyle: 'white', lineWidth: 30, lineCap: 'round'});
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  };
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    if (!own) wipe(false);
    canvas.parentElement.classList.remove('empty');
    own = true;
    clearTimeout(waiting);  // no answer about half a digit
    press(null);
    last = at(event);
    draw(last, last);
  });
  canvas.addEventListener('pointermove', event => {
    if (!last) return;
    const here = at(event);
    draw(last, here);
    last = here;
  });
  for (const name of ['pointerup', 'pointercancel'])
    canvas.addEventListener(name, () => { if (last) { last = null; send(120); } });
  const chosen = element.querySelector('[aria-pressed="true"] img');
  wipe(!chosen);
  if (chosen) chosen.complete && chosen.naturalWidth ? show(chosen) : chosen.addEventListener('load', () => show(chosen));
}
