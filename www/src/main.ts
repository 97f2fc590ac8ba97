// The demo page: puts its parts together and loads the built-in model.

import './style.css';
import { features, type Model } from 'twinfer';
import { Chat } from './chat.js';
import { byId, make } from './dom.js';
import { bytes } from './format.js';
import { Loader } from './loader.js';
import { Settings } from './settings.js';

/** The prompt whose digest is compared: any text will do, as long as it is the same one. */
const FIXED_PROMPT = 'Once upon a time there was a little house at the edge of the forest.';

const settings = new Settings();
const chat = new Chat(settings);
const compare = byId<HTMLButtonElement>('compare');
let model: Model | null = null;
let file = '';

const loader = new Loader(settings, (loaded, name) => {
  model = loaded;
  file = name.split(/[/?#]/).findLast((part) => part.endsWith('.gguf')) ?? '';
  chat.model = loaded;
  compare.disabled = loaded === null;
  byId('compare-result').replaceChildren();
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

compare.addEventListener('click', async () => {
  const result = byId('compare-result');
  if (model === null) {
    return;
  }
  compare.disabled = true;
  try {
    const tokens = await model.tokenize(FIXED_PROMPT);
    const digest = await model.digest(tokens);
    const where = file ? ` -m ${file}` : '';
    result.replaceChildren(
      make('p', '', `Prompt: “${FIXED_PROMPT}”, ${tokens.length} tokens.`),
      make('code', 'digest', digest),
      make('p', '', 'On the server:'),
      make('code', 'digest', `twinfer eval${where} --tokens ${tokens.join(',')}`),
    );
  } catch (error) {
    result.replaceChildren(make('p', 'failure', String((error as Error).message)));
  }
  compare.disabled = model === null;
});

showEngine();
void loader.loadBuiltIn();
