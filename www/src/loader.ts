// Choosing and loading a model: the built-in one, an address, files, what this browser has; progress, cancel, resume.

import { Model, TwinferError, cache, type LoadProgress, type ModelSource } from 'twinfer';
import builtIn from '../../models/demo/twinfer-demo-q4_k_m.gguf?url';
import { byId, make } from './dom.js';
import { bytes, count, duration } from './format.js';
import { serverModels } from './server-models.js';
import type { Settings } from './settings.js';

const PHASES: Record<LoadProgress['phase'], string> = {
  connecting: 'Connecting',
  waiting: 'Waiting for another tab that loads this file',
  download: 'Downloading',
  cache: 'Reading from this browser',
  file: 'Reading the file',
  retry: 'The connection broke; trying again',
  ready: 'Ready',
};

const TITLES: Partial<Record<string, string>> = {
  format: 'This is not a model file',
  'content-type': 'This is not a model file',
  unsupported: 'This model cannot run here',
  memory: 'The model is too large for a page',
  network: 'The connection failed',
  truncated: 'The file is not whole',
  digest: 'The file is damaged',
  http: 'The server refuses',
  crashed: 'The engine stopped',
};

interface Wish {
  source: ModelSource;
  cached: boolean;
  name: string;
}

export class Loader {
  readonly #facts = byId('model-facts');
  readonly #loading = byId('loading');
  readonly #bar = byId<HTMLProgressElement>('bar');
  readonly #chooser = byId('chooser');
  readonly #change = byId<HTMLButtonElement>('change');
  #controller: AbortController | null = null;
  #model: Model | null = null;
  #wish: Wish = { source: new URL(builtIn, location.href), cached: false, name: 'the built-in model' };

  constructor(
    private readonly settings: Settings,
    private readonly onModel: (model: Model | null, name: string) => void,
  ) {
    this.#change.addEventListener('click', () => this.#open(this.#chooser.hidden !== false));
    byId('cancel').addEventListener('click', () => this.#controller?.abort());
    byId('retry').addEventListener('click', () => void this.load(this.#wish));
    byId('built-in').addEventListener('click', () => void this.loadBuiltIn());
    byId('url-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const urls = byId<HTMLInputElement>('url').value.trim().split(/\s+/);
      void this.load({ source: urls, cached: true, name: urls[0] ?? '' });
    });
    const file = byId<HTMLInputElement>('file');
    file.addEventListener('change', () => this.#files([...(file.files ?? [])]));
    this.#dropping();
  }

  loadBuiltIn(): Promise<void> {
    return this.load({ source: new URL(builtIn, location.href), cached: false, name: 'the built-in model' });
  }

  #files(files: File[]): void {
    const sorted = files.sort((a, b) => a.name.localeCompare(b.name));
    if (sorted.length > 0) {
      void this.load({ source: sorted, cached: false, name: sorted[0]?.name ?? '' });
    }
  }

  #dropping(): void {
    const drop = byId('drop');
    for (const target of [document.body, drop]) {
      target.addEventListener('dragover', (event) => {
        event.preventDefault();
        drop.classList.add('over');
        this.#open(true);
      });
    }
    document.body.addEventListener('dragleave', () => drop.classList.remove('over'));
    document.body.addEventListener('drop', (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      this.#files([...(event.dataTransfer?.files ?? [])]);
    });
  }

  #open(open: boolean): void {
    this.#chooser.hidden = !open;
    this.#change.setAttribute('aria-expanded', String(open));
    this.#change.textContent = open ? 'Close' : 'Change model';
    if (open) {
      void this.#list();
      void this.#offer();
    }
  }

  /** Lists what the page's server has, if it has any. */
  async #offer(): Promise<void> {
    const models = await serverModels();
    byId('offered').hidden = models.length === 0;
    byId('offered-list').replaceChildren(
      ...models.map((model) => {
        const item = make('li');
        const what = make('span', 'what', model.name);
        what.append(make('small', '', model.bytes === null ? '' : bytes(model.bytes)));
        const load = make('button', '', 'Load');
        load.type = 'button';
        load.setAttribute('aria-label', `Load ${model.name}`);
        const source = new URL(`./models/${encodeURIComponent(model.name)}`, location.href).href;
        load.addEventListener('click', () => void this.load({ source, cached: false, name: model.name }));
        item.append(what, load);
        return item;
      }),
    );
  }

  async load(wish: Wish): Promise<void> {
    this.#controller?.abort();
    const controller = new AbortController();
    this.#controller = controller;
    this.#wish = wish;
    this.#model?.free();
    this.#model = null;
    this.onModel(null, '');
    byId('failure').hidden = true;
    this.#loading.hidden = false;
    this.#bar.removeAttribute('value');
    this.#facts.textContent = wish.name;
    try {
      const model = await Model.load(wish.source, {
        ...this.settings.load(),
        cache: wish.cached,
        signal: controller.signal,
        onProgress: (progress) => this.#progress(progress),
      });
      this.#model = model;
      this.#ready(model, wish);
      void model.ended.then((error) => error && this.#fail(error));
    } catch (error) {
      if (this.#controller === controller) {
        this.#fail(error);
      }
    } finally {
      if (this.#controller === controller) {
        this.#controller = null;
        this.#loading.hidden = true;
      }
    }
  }

  #progress(progress: LoadProgress): void {
    const { phase, loaded, total, rate, secondsLeft, header, uncached } = progress;
    byId('loading-label').textContent = PHASES[phase];
    if (header) {
      const facts = [header.name || 'A model without a name', header.architecture, header.type];
      facts.push(bytes(header.fileBytes));
      if (header.contextTrained) {
        facts.push(`context of ${header.contextTrained.toLocaleString('en')}`);
      }
      this.#facts.textContent = facts.join(' · ');
    }
    if (total) {
      this.#bar.value = loaded / total;
    }
    const parts = [total ? `${bytes(loaded)} of ${bytes(total)}` : bytes(loaded)];
    if (rate > 0) {
      parts.push(`${(rate / 1e6).toFixed(1)} MB/s`);
    }
    if (secondsLeft !== null && secondsLeft > 0) {
      parts.push(`${duration(secondsLeft)} left`);
    }
    if (uncached) {
      parts.push(`not kept: ${uncached}`);
    }
    byId('loading-facts').textContent = parts.join(' · ');
  }

  #ready(model: Model, wish: Wish): void {
    const { info } = model;
    this.#open(false);
    this.#facts.textContent = [
      info.name || wish.name,
      info.architecture,
      info.type,
      `${count(info.parameters)} weights`,
      `context of ${info.contextLength.toLocaleString('en')}`,
    ].join(' · ');
    this.onModel(model, wish.name);
  }

  #fail(error: unknown): void {
    const known = error instanceof TwinferError ? error : null;
    const cancelled = known?.code === 'aborted';
    this.#model = null;
    this.onModel(null, '');
    this.#loading.hidden = true;
    byId('failure').hidden = false;
    byId('failure').classList.toggle('calm', cancelled);
    byId('failure-title').textContent = cancelled ? 'Cancelled' : (TITLES[known?.code ?? ''] ?? 'The model could not be loaded');
    byId('failure-text').textContent = cancelled
      ? this.#wish.cached
        ? 'What has come is kept: loading it again goes on from there.'
        : 'Nothing was kept.'
      : String((error as Error).message);
    byId('retry').textContent = cancelled && this.#wish.cached ? 'Resume' : 'Try again';
    this.#open(true);
  }

  async #list(): Promise<void> {
    const list = byId('cached');
    const [models, usage] = await Promise.all([cache.list(), cache.usage()]).catch(() => [[], null] as const);
    list.replaceChildren();
    for (const model of models) {
      const item = make('li');
      const name = model.name || model.url.split('/').at(-1) || model.url;
      const size = model.complete ? bytes(model.bytes) : `${bytes(model.bytes)} of ${model.length === null ? '?' : bytes(model.length)}`;
      const what = make('span', 'what', name);
      what.append(make('small', '', size));
      what.title = model.url;
      const load = make('button', '', model.complete ? 'Load' : 'Resume');
      load.setAttribute('aria-label', `${load.textContent} ${name}`);
      load.addEventListener('click', () => void this.load({ source: model.url, cached: true, name: model.url }));
      const remove = make('button', 'quiet', 'Delete');
      remove.setAttribute('aria-label', `Delete ${name}`);
      remove.addEventListener('click', async () => {
        try {
          await cache.delete(model.url);
        } catch (error) {
          byId('quota').textContent = String((error as Error).message);
          return;
        }
        await this.#list();
      });
      for (const button of [load, remove]) {
        button.type = 'button';
      }
      item.append(what, load, remove);
      list.append(item);
    }
    if (models.length === 0) {
      list.append(make('li', 'hint', 'No models are kept yet.'));
    }
    byId('quota').textContent = usage ? `${bytes(usage.used)} used, ${bytes(usage.quota)} available to this page` : '';
  }
}
