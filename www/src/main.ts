// The demo page: puts its parts together and loads the built-in model.

import './style.css';
import { features, type Model } from 'twinfer';
import { Chat } from './chat.js';
import { Compare } from './compare.js';
import { byId, make } from './dom.js';
import { bytes } from './format.js';
import { Loader } from './loader.js';
import { Search } from './search.js';
import { Settings } from './settings.js';

const settings = new Settings();
const chat = new Chat(settings);
const compare = new Compare();
const search = new Search();
let model: Model | null = null;

const loader = new Loader(settings, (loaded, name) => {
  model = loaded;
  const file = name.split(/[/?#]/).findLast((part) => part.endsWith('.gguf')) ?? '';
  // An encoder makes vectors alone: there is nothing to talk to, and no logits to compare.
  const writer = loaded?.info.writesText === false ? null : loaded;
  chat.model = writer;
  byId('chat').hidden = loaded !== null && writer === null;
  search.model = loaded;
  compare.use(writer, file);
  showEngine();
});

function showEngine(): void {
  const found = features();
  const rows: [string, string][] = [];
  if (model) {
    const { info } = model;
    rows.push(
      ['Backend', `${info.backend} (build ${info.build})`],
      ['Threads', String(info.threads)],
      ['Memory', `${bytes(info.memoryBytes)}, of it ${bytes(info.weightBytes)} of weights and ${bytes(info.cacheBytes)} of cache`],
    );
  }
  rows.push(
    ['Cores', String(found.cores)],
    ['SIMD', [found.simd && 'simd128', found.relaxedSimd && 'relaxed'].filter(Boolean).join(', ') || 'none'],
    ['Cross-origin isolated', found.crossOriginIsolated ? 'yes' : 'no'],
  );
  const list = byId('engine');
  list.replaceChildren(...rows.flatMap(([term, text]) => [make('dt', '', term), make('dd', '', text)]));
  const note = byId('isolation');
  note.hidden = found.threads;
  note.textContent = found.crossOriginIsolated
    ? 'This browser has no shared memory for wasm, so the model runs on one thread.'
    : 'This page is not cross-origin isolated, so the model runs on one thread. A server that sends the headers Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy changes that.';
}

showEngine();
void loader.loadBuiltIn();
