// The explorer's one script: swaps what the server computed, and lights one layer in all places at once.
// Pages are whole without it. Names may come from anybody's model: they are only ever set as text.
const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const show = (selector) => all(selector).forEach((each) => { each.hidden = false; });
const isField = (element) => element instanceof Element && element.matches('input:not([type=range]):not([type=radio]), select, textarea');

// Theme: the system's, or the one chosen, kept in this browser.
function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  const dark = theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  for (const each of all('.themed')) {
    const source = dark ? each.dataset.dark : each.dataset.light;
    if (each.getAttribute('src') !== source) each.src = source;
  }
  return dark;
}
let stored = null;
try { stored = localStorage.getItem('convatlas-theme'); } catch { /* no storage here */ }
setTheme(stored === 'dark' || stored === 'light' ? stored : null);
show('[data-act=theme], [data-act=keys]');
find('[data-act=theme]').addEventListener('click', () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  setTheme(dark ? 'light' : 'dark');
  try { localStorage.setItem('convatlas-theme', root.dataset.theme); } catch { /* no storage here */ }
});
find('[data-act=keys]').addEventListener('click', () => byId('keys').showModal());

// Swapping: at most one request in flight, the newest wins; parts are replaced by id, the form never is.
let inFlight = null, queued = null, seenAt = new Date();
const say = (text) => { byId('say').textContent = text; };
function lost(text) {
  const bar = byId('lost');
  bar.hidden = !text;
  bar.textContent = text;
}
async function swap(url, { push = false, replace = true, done = () => {}, failed = () => {} } = {}) {
  if (inFlight) { queued = [url, { push, replace, done, failed }]; return; }
  inFlight = url;
  const main = byId('main');
  main.classList.add('waiting');
  const slow = setTimeout(() => say('Still computing'), 2000);
  try {
    const response = await fetch(url, { headers: { 'X-Swap': '1', Accept: 'application/json' }, cache: 'no-store' });
    const body = await response.json();
    lost('');
    if (response.ok) {
      seenAt = new Date();
      if (!queued) { replaceParts(body.parts); done(body); say(body.say); }
      if (push) history.pushState({}, '', body.url);
      else if (replace) history.replaceState({}, '', body.url);
    } else if (response.status === 503) {
      lost(`Busy: ${body.detail}. Tried again in 3 s.`);
      setTimeout(() => swap(url, { push, replace, done, failed }), 3000);
    } else failed(body);
  } catch {
    const time = seenAt.toTimeString().slice(0, 5);
    lost(`Not connected; what is shown is from ${time}. Start convatlas explore again, then reload.`);
  } finally {
    clearTimeout(slow);
    inFlight = null;
    main.classList.remove('waiting');
    if (queued) { const next = queued; queued = null; swap(...next); }
  }
}
function replaceParts(parts) {
  const focused = document.activeElement?.id;
  const position = document.activeElement?.closest?.('tr[data-layer]')?.dataset.layer;
  for (const [name, html] of Object.entries(parts)) {
    const part = byId(`part-${name}`);
    if (!part) continue;
    const before = new Map(all('[id]', part).map((each) => [each.id, each.textContent]));
    part.innerHTML = html;
    for (const each of all('[id]', part)) {
      if (before.has(each.id) && before.get(each.id) !== each.textContent) find('[data-flash]', each)?.classList.add('flash');
    }
  }
  show('[data-copy]');
  if (focused && byId(focused) && document.activeElement?.id !== focused) byId(focused).focus({ preventScroll: true });
  else if (position && document.activeElement === document.body) rowOf(position)?.focus({ preventScroll: true });
}
addEventListener('popstate', () => location.reload());

// Copying.
show('[data-copy], [data-copy-link]');
async function copy(button, text) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = Object.assign(document.createElement('textarea'), { value: text });
    document.body.append(area); area.select(); document.execCommand('copy'); area.remove();
  }
  const label = button.textContent;
  if (label === 'Copied') return;
  button.textContent = 'Copied'; say('Copied');
  setTimeout(() => { button.textContent = label; }, 1500);
}
document.addEventListener('click', async (event) => {
  const target = event.target.closest('[data-copy], [data-copy-link], [data-fetch], [data-swap]');
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (target.dataset.copy) copy(target, byId(target.dataset.copy).textContent);
  else if ('copyLink' in target.dataset) copy(target, location.href);
  else if ('fetch' in target.dataset) {
    event.preventDefault();
    const response = await fetch(target.href);
    if (response.ok) copy(target, await response.text());
  } else if (byId('filters')) { event.preventDefault(); swap(target.href, { push: true, done: afterAtlas }); }
});

// Keys.
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
  if (event.key === '/') { event.preventDefault(); byId('find').focus(); }
  else if (event.key === '?') byId('keys').showModal();
  else if (event.key === 'e') find('#exports a')?.focus();
});

// The atlas: ranges, axes, and the network that is pointed at.
function afterAtlas() {
  for (const range of all('.range')) {
    const name = range.dataset.range, bars = byId(`bars-${name}`), words = byId(`words-${name}`);
    const place = find('[data-bars]', range), text = find('[data-words]', range);
    if (bars) { place.replaceChildren(bars.cloneNode(true)); find('svg', place).removeAttribute('id'); }
    if (words) { text.textContent = words.textContent; text.className = words.className; }
  }
}
function filterAddress() {
  const query = new URLSearchParams(location.search);
  for (const range of all('.range')) {
    const texts = range.dataset.texts.split(','), [low, high] = all('input', range).map((each) => Number(each.value));
    const text = `${low > 0 ? texts[low] : ''}..${high < texts.length - 1 ? texts[high] : ''}`;
    if (text === '..') query.delete(range.dataset.range); else query.set(range.dataset.range, text);
  }
  for (const select of all('#axes select')) query.set(select.name, select.value);
  return `/?${query}`;
}
if (byId('filters')) {
  show('.thumbs');
  afterAtlas();
  for (const input of all('.range input')) {
    const keepOrder = () => {
      const [low, high] = all('input', input.closest('.range'));
      if (Number(low.value) >= Number(high.value)) {
        if (input === low) low.value = String(Number(high.value) - 1); else high.value = String(Number(low.value) + 1);
      }
    };
    const texts = input.closest('.range').dataset.texts.split(',');
    const speak = () => input.setAttribute('aria-valuetext', texts[Number(input.value)]);
    speak();
    input.addEventListener('input', () => { keepOrder(); speak(); swap(filterAddress(), { done: afterAtlas }); });
    input.addEventListener('change', () => { keepOrder(); swap(filterAddress(), { push: true, done: afterAtlas }); });
  }
  byId('axes').addEventListener('change', () => swap(filterAddress(), { push: true, done: afterAtlas }));
  const networks = fetch('/api/v1/networks').then((response) => response.json()).then((list) => new Map(list.map((each) => [each.name, each])));
  const short = (value) => {
    for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) if (value >= size * 0.9995) return `${(value / size).toPrecision(3)} ${unit}`;
    return String(value);
  };
  const point = async (name) => {
    const one = (await networks).get(name);
    if (!one || !byId('peek-open')) return;
    for (const each of all('.on')) each.classList.remove('on');
    for (const each of all(`[data-at="${CSS.escape(name)}"]`)) each.classList.add('on');
    const facts = { year: one.year, new: one.summary, params: short(one.params), macs: short(one.macs), memory: (4 * one.activations / 2 ** 20).toFixed(2), px: one.input_size[1], depth: one.depth, top1: one.top1 ? `${one.top1.top1.toFixed(1)} %` : 'not published', place: one.top1 ? `${one.top1.place}, ${one.top1.protocol}` : '' };
    for (const [key, value] of Object.entries(facts)) find(`[data-peek=${key}]`).textContent = value;
    byId('t-peek').textContent = name;
    byId('t-peek').href = byId('peek-open').href = `/networks/${name}`;
    byId('peek-compare').href = `/compare?a=${name}`;
  };
  const over = (event) => { const one = event.target.closest?.('[data-at]'); if (one) point(one.dataset.at); };
  for (const kind of ['pointerover', 'focusin']) for (const id of ['part-figure', 'part-table']) byId(id).addEventListener(kind, over);
}

// A network: knobs.
const knobs = byId('knobs');
const rowOf = (name) => all('tr[data-layer]').find((row) => row.dataset.layer === name);
const layers = () => all('#part-rows tr[data-layer]');
let place = null;  // Row and column on the map; null for the middle.
function opened() { return all('.tg[aria-expanded=true]').map((each) => each.dataset.open); }
function networkAddress(changes = {}) {
  const query = new URLSearchParams();
  for (const field of knobs.elements) {
    if (!field.name || (field.type === 'radio' && !field.checked)) continue;
    if (field.value !== field.dataset.default && field.value !== '') query.set(field.name, field.value);
  }
  const now = { level: find('[data-level][aria-current]').dataset.level, open: opened().join(','), layer: find('#part-rows tr.on')?.dataset.layer ?? '', at: place ? place.join(',') : '', ...changes };
  if (now.level !== 'blocks') query.set('level', now.level);
  if (now.open && now.level === 'blocks') query.set('open', now.open);
  if (now.layer && pointedByHand) query.set('layer', now.layer);
  if (now.at && pointedByHand) query.set('at', now.at);
  const text = query.toString().replaceAll('%2C', ',').replaceAll('%3A', ':');
  return text ? `${location.pathname}?${text}` : location.pathname;
}
let pointedByHand = new URLSearchParams(location.search).has('layer');
function marked() {
  for (const field of knobs.elements) {
    if (!field.dataset?.default) continue;
    const set = field.value !== field.dataset.default;
    if (field.type === 'radio') field.classList.toggle('changed', field.checked && set);
    else field.classList.toggle('set', set);
  }
}
function afterNetwork(body) {
  byId('reset').disabled = Object.keys(body.set).length === 0;
  byId('problem').hidden = byId('works').hidden = true;
  byId('main').classList.remove('waiting');
  byId('of-batch').textContent = byId('batch').value;
  const side = Number(byId('input').value);
  if (side) byId('rf').dataset.side = `${side},${side}`;
  prepareRows();
}
function refused(body) {
  byId('main').classList.add('waiting');
  const problem = byId('problem'), button = byId('works');
  problem.hidden = false;
  problem.textContent = body.works ? `${find('h1').textContent} needs at least ${body.works} px.` : body.detail;
  button.hidden = !body.works;
  if (body.works) { button.textContent = `Set ${body.works}`; button.onclick = () => { byId('input').value = body.works; byId('input-slide').value = body.works; turned(true); }; }
}
function turned(settled, changes) {
  marked();
  swap(networkAddress(changes), { push: settled, done: afterNetwork, failed: refused });
}
if (knobs) {
  show('#input-slide, .narrow, #reset, #yours, #pad');
  marked();
  const pairs = [['input-slide', 'input'], ...all('.narrow').map((each) => [each.id, each.id.replace('s-', 'o-')])];
  for (const [slide, exact] of pairs) {
    byId(slide).addEventListener('input', () => { byId(exact).value = byId(slide).value; turned(false); });
    byId(slide).addEventListener('change', () => turned(true));
    byId(exact).addEventListener('input', () => { byId(slide).value = byId(exact).value; });
  }
  knobs.addEventListener('submit', (event) => { event.preventDefault(); turned(true); });
  knobs.addEventListener('change', (event) => { if (event.target.name) turned(true); });
  byId('reset').addEventListener('click', () => {
    for (const field of knobs.elements) {
      if (!field.dataset?.default) continue;
      if (field.type === 'radio') field.checked = field.value === field.dataset.default; else field.value = field.dataset.default;
    }
    for (const [slide, exact] of pairs) byId(slide).value = byId(exact).value;
    turned(true);
  });
  for (const link of all('[data-level]')) link.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    for (const each of all('[data-level]')) each.toggleAttribute('aria-current', each === link);
    link.setAttribute('aria-current', 'true');
    turned(true);
  });
  byId('measure').addEventListener('change', () => { find('#sheet table').dataset.show = byId('measure').value; });
  new IntersectionObserver(([entry]) => byId('sticky').classList.toggle('stuck', entry.boundingClientRect.bottom < 0 && innerWidth > 640)).observe(find('.nethead'));
}

// The pointed layer: row, figure, receptive field and arithmetic together.
function point(row, { focus = false } = {}) {
  if (!row) return;
  for (const each of all('#part-rows tr.on')) { each.classList.remove('on'); each.tabIndex = -1; }
  row.classList.add('on');
  row.tabIndex = 0;
  if (focus) { row.focus({ preventScroll: true }); row.scrollIntoView({ block: 'nearest' }); }
  drawField(row);
  writeFormulas(row);
}
function prepareRows() {
  point(find('#part-rows tr.on') ?? layers()[0]);
}
function moved(row) {
  pointedByHand = true;
  point(row);
  history.replaceState({}, '', networkAddress());
}
const NS = 'http://www.w3.org/2000/svg';
const make = (name, attributes, ...children) => {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
};
let photo = null;
function drawField(row) {
  const host = byId('rf');
  const [height, width] = host.dataset.side.split(',').map(Number);
  const edge = Math.max(height, width), unit = edge / 260, band = 12 * unit, room = 8 * unit;
  const svg = make('svg', { class: 'rf', viewBox: `${-band} ${-band} ${width + band + room} ${height + band + room}`, role: 'img', 'aria-labelledby': 'rf-says' });
  const image = make('image', { href: photo ?? host.dataset.photo, width, height, preserveAspectRatio: 'xMidYMid slice' });
  const pattern = make('pattern', { id: 'hatch', class: 'hatch', width: 6 * unit, height: 6 * unit, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, make('path', { d: `M0 0V${6 * unit}` , 'stroke-width': unit }));
  svg.append(make('defs', {}, pattern), image);
  const says = byId('rf-says');
  const name = document.createElement('b');
  name.textContent = row.dataset.layer.replace(/:\d+$/, '');
  if (!row.dataset.rf) { host.replaceChildren(svg); says.replaceChildren(name, ' has no place on the image.'); return; }
  const [size, stride, start, places] = JSON.parse(row.dataset.rf);
  const at = [0, 1].map((axis) => Math.min(places[axis] - 1, place ? place[axis] : Math.floor(places[axis] * [0.4, 0.36][axis])));
  const whole = size.map((each, axis) => each === null || stride[axis] === null);
  const first = [0, 1].map((axis) => whole[axis] ? 0 : start[axis] + at[axis] * stride[axis]);
  const extent = [0, 1].map((axis) => size[axis] === null ? [height, width][axis] : size[axis]);
  const [y, x] = first, [h, w] = extent;
  const inside = [Math.max(0, x), Math.max(0, y), Math.min(width, x + w), Math.min(height, y + h)];
  svg.append(make('path', { class: 'dim', 'fill-rule': 'evenodd', d: `M0 0H${width}V${height}H0Z` + (inside[0] < inside[2] && inside[1] < inside[3] ? `M${inside[0]} ${inside[1]}H${inside[2]}V${inside[3]}H${inside[0]}Z` : '') }));
  const view = [-band, -band, width + room, height + room];
  const beyond = [Math.max(view[0], x), Math.max(view[1], y), Math.min(view[2], x + w), Math.min(view[3], y + h)];
  if (beyond[0] < 0 || beyond[1] < 0 || beyond[2] > width || beyond[3] > height) {
    svg.append(make('path', { fill: 'url(#hatch)', 'fill-rule': 'evenodd', d: `M${beyond[0]} ${beyond[1]}H${beyond[2]}V${beyond[3]}H${beyond[0]}ZM0 0H${width}V${height}H0Z` }));
  }
  for (const [axis, length] of [[1, width], [0, height]]) {
    if (whole[axis]) continue;
    for (let i = 0; i < places[axis]; i += Math.max(1, Math.ceil(places[axis] / 64))) {
      const middle = start[axis] + i * stride[axis] + size[axis] / 2;
      if (middle < 0 || middle > length) continue;
      svg.append(make('path', { class: 'tick', 'stroke-width': unit, d: axis ? `M${middle} ${-band + unit}v${5 * unit}` : `M${-band + unit} ${middle}h${5 * unit}` }));
    }
    const here = Math.min(length, Math.max(0, first[axis] + size[axis] / 2));
    svg.append(make('path', { class: 'tick at', 'stroke-width': 2.4 * unit, d: axis ? `M${here} ${-band + unit}v${7 * unit}` : `M${-band + unit} ${here}h${7 * unit}` }));
  }
  const clip = { x: Math.max(view[0] + unit, x), y: Math.max(view[1] + unit, y) };
  const shape = { ...clip, width: Math.max(0, Math.min(view[2] - unit, x + w) - clip.x), height: Math.max(0, Math.min(view[3] - unit, y + h) - clip.y) };
  svg.append(make('rect', { class: 'halo2', 'stroke-width': 4 * unit, ...shape }), make('rect', { class: 'box', 'stroke-width': 2 * unit, ...shape }));
  host.replaceChildren(svg);
  says.replaceChildren(name, sentence(size, stride, first, places, at, [height, width]));
}
function sentence(size, stride, first, places, at, sides) {
  if (size.every((each) => each === null)) return ' sees the whole image.';
  const wide = size.map((each) => each === null ? 'all' : each).reverse().join('×');
  const where = ` at row ${at[0]}, column ${at[1]} of ${places[0]}×${places[1]} sees ${wide} px`;
  if (size.some((each, axis) => each === null || stride[axis] === null)) return `${where}; its places do not move evenly.`;
  const [rows, columns] = [0, 1].map((axis) => `${first[axis]} to ${first[axis] + size[axis] - 1}`);
  const more = size.some((each, axis) => each > sides[axis]) ? ` It sees more than the image (${Math.max(...size)} of ${Math.max(...sides)} px).` : '';
  return `${where}: rows ${rows}, columns ${columns}. The next place sees ${stride[1]} px further on.${more}`;
}
function writeFormulas(row) {
  const list = byId('formula');
  byId('formula-of').textContent = row.dataset.layer.replace(/:\d+$/, '');
  const parts = JSON.parse(row.dataset.formulas ?? '[]');
  if (!parts.length) { list.replaceChildren(Object.assign(document.createElement('p'), { textContent: 'No multiply-adds and no size to compute here.' })); return; }
  const shown = parts.slice(0, 6), nodes = [];
  for (const [name, lines] of shown) {
    if (parts.length > 1) nodes.push(Object.assign(document.createElement('h3'), { textContent: name }));
    for (const line of lines) nodes.push(Object.assign(document.createElement('p'), { textContent: line.replaceAll(' * ', ' × ').replaceAll('*', '×') }));
  }
  if (parts.length > shown.length) nodes.push(Object.assign(document.createElement('h3'), { textContent: `and ${parts.length - shown.length} more: open the block` }));
  list.replaceChildren(...nodes);
}
function movePlace(rows, columns) {
  const row = find('#part-rows tr.on');
  if (!row?.dataset.rf) return;
  const places = JSON.parse(row.dataset.rf)[3];
  const now = [0, 1].map((axis) => Math.min(places[axis] - 1, place ? place[axis] : Math.floor(places[axis] * [0.4, 0.36][axis])));
  place = now.map((each, axis) => Math.max(0, Math.min(places[axis] - 1, each + [rows, columns][axis])));
  moved(row);
}
if (knobs) {
  const given = byId('rf').dataset.at;
  if (given) place = given.split(',').map(Number);
  prepareRows();
  const body = byId('part-rows');
  body.addEventListener('pointerover', (event) => {
    const row = event.target.closest('tr[data-layer]');
    if (row && !row.classList.contains('on')) moved(row);
  });
  body.addEventListener('focusin', (event) => {
    const row = event.target.closest('tr[data-layer]');
    if (row && !row.classList.contains('on')) moved(row);
  });
  const toggle = (button) => {
    button.setAttribute('aria-expanded', String(button.getAttribute('aria-expanded') !== 'true'));
    turned(true);
  };
  body.addEventListener('click', (event) => { const button = event.target.closest('.tg'); if (button) toggle(button); });
  body.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.shiftKey && event.key.startsWith('Arrow')) {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      event.preventDefault();
      movePlace(...moves[event.key]);
    } else if (step && !event.shiftKey) {
      event.preventDefault();
      const rows = layers(), now = rows.indexOf(find('#part-rows tr.on'));
      pointedByHand = true;
      point(rows[Math.max(0, Math.min(rows.length - 1, now + step))], { focus: true });
      history.replaceState({}, '', networkAddress());
    } else if (event.key === 'Enter' && event.target.matches('tr')) {
      const button = find('.tg', event.target);
      if (button) { event.preventDefault(); toggle(button); }
    }
  });
  for (const button of all('[data-move]')) button.addEventListener('click', () => movePlace(...button.dataset.move.split(',').map(Number)));
  const take = (file) => {
    if (!file) return;
    const url = URL.createObjectURL(file), test = new Image(), problem = byId('photo-problem');
    test.onload = () => { if (photo) URL.revokeObjectURL(photo); photo = url; problem.hidden = true; point(find('#part-rows tr.on')); };
    test.onerror = () => { URL.revokeObjectURL(url); problem.hidden = false; problem.textContent = `${file.name} is not an image that can be read here (JPEG, PNG, WebP).`; };
    test.src = url;
  };
  byId('photo').addEventListener('change', (event) => take(event.target.files[0]));
  const side = byId('side');
  side.addEventListener('dragover', (event) => event.preventDefault());
  side.addEventListener('drop', (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
}

// Exercises: which seeds of each kind were tried and which were right, kept in this browser.
const exercise = byId('exercise');
if (exercise) {
  let progress = {};
  try { progress = JSON.parse(localStorage.getItem('convatlas-exercises') ?? '{}') ?? {}; } catch { /* no storage here */ }
  const { kind, seed, right } = exercise.dataset;
  if (right) {
    progress[kind] = { ...progress[kind], [seed]: right === 'yes' || progress[kind]?.[seed] === true };
    try { localStorage.setItem('convatlas-exercises', JSON.stringify(progress)); } catch { /* no storage here */ }
  }
  for (const each of all('[data-progress]')) {
    const tried = Object.values(progress[each.dataset.progress] ?? {});
    if (tried.length) each.textContent = `${tried.filter(Boolean).length} of ${tried.length}`;
  }
  show('[data-progress-note]');
}
