// The conversation: messages, the answer as it comes, stopping, and the speed beside it.

import { TwinferError, type Generation, type Message, type Model } from 'twinfer';
import { Chart } from './chart.js';
import { byId, make } from './dom.js';
import type { Settings } from './settings.js';

export class Chat {
  readonly #log = byId('log');
  readonly #form = byId<HTMLFormElement>('chat-form');
  readonly #message = byId<HTMLTextAreaElement>('message');
  readonly #send = byId<HTMLButtonElement>('send');
  readonly #stop = byId<HTMLButtonElement>('stop');
  readonly #facts = byId('speed-facts');
  readonly #rate = new Chart(byId('chart-rate'), 'Tokens per second');
  readonly #time = new Chart(byId('chart-time'), 'Milliseconds per token');
  #messages: Message[] = [];
  #model: Model | null = null;
  #answer: Generation | null = null;

  constructor(private readonly settings: Settings) {
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#ask();
    });
    this.#message.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    this.#stop.addEventListener('click', () => this.#answer?.abort());
    byId('new').addEventListener('click', () => {
      this.clear();
      this.#message.focus({ preventScroll: true });
    });
  }

  /** The model that answers from now on; `null` while there is none. */
  set model(model: Model | null) {
    if (model !== this.#model) {
      this.clear();
    }
    this.#model = model;
    this.#message.placeholder = model?.info.chat === false ? 'Begin a text; the model continues it' : 'Write a message';
    this.#buttons();
  }

  clear(): void {
    this.#answer?.abort();
    this.#messages = [];
    this.#log.replaceChildren();
  }

  #buttons(): void {
    this.#send.disabled = this.#model === null || this.#answer !== null;
    this.#stop.hidden = this.#answer === null;
  }

  async #ask(): Promise<void> {
    const text = this.#message.value.trim();
    const model = this.#model;
    if (text === '' || model === null || this.#answer !== null) {
      return;
    }
    this.#message.value = '';
    this.#messages.push({ role: 'user', content: text });
    this.#show('user', text);
    const { element, body } = this.#show('assistant', '');
    element.setAttribute('aria-busy', 'true');
    const { system } = this.settings;
    const conversation = system ? [{ role: 'system', content: system }, ...this.#messages] : this.#messages;
    const answer = model.generate(model.info.chat ? conversation : text, this.settings.generate());
    this.#answer = answer;
    this.#buttons();
    this.#rate.clear();
    this.#time.clear();
    let content = '';
    let end = '';
    try {
      content = await this.#stream(answer, body);
      const result = await answer.result;
      end = result.reason === 'limit' ? 'Stopped at the limit of tokens.' : result.reason === 'context-full' ? 'The context is full.' : '';
    } catch (error) {
      content = body.textContent ?? '';
      end = error instanceof TwinferError && error.code === 'aborted' ? 'Stopped.' : `Failed: ${String((error as Error).message)}`;
    }
    this.#answer = null;
    element.removeAttribute('aria-busy');
    if (end !== '') {
      element.append(make('p', 'hint', end));
    }
    if (this.#messages.at(-1)?.content === text) {
      this.#messages.push({ role: 'assistant', content });
    }
    this.#buttons();
    this.#message.focus({ preventScroll: true });
  }

  async #stream(answer: Generation, body: HTMLElement): Promise<string> {
    let content = '';
    let tokens = 0;
    const begun = performance.now();
    let first = 0;
    let last = begun;
    const times: number[] = [];
    const text = document.createTextNode('');
    body.append(text);
    for await (const piece of answer) {
      const now = performance.now();
      content += piece.text;
      text.appendData(piece.text);
      tokens += 1;
      if (tokens === 1) {
        first = now;
      } else {
        const ms = now - last;
        times.push(ms);
        this.#time.add(ms);
        // Over the last tokens, so that it moves with what happens and does not jump with every one.
        const recent = times.slice(-8);
        this.#rate.add((recent.length * 1000) / Math.max(recent.reduce((a, b) => a + b, 0), 0.01));
      }
      last = now;
      const rate = tokens > 1 ? ((tokens - 1) * 1000) / Math.max(now - first, 0.01) : 0;
      this.#facts.textContent = `${tokens} tokens, ${rate.toFixed(1)} per second; the first one after ${Math.round(first - begun)} ms`;
      this.#log.scrollTop = this.#log.scrollHeight;
    }
    return content;
  }

  #show(role: 'user' | 'assistant', text: string): { element: HTMLElement; body: HTMLElement } {
    const element = make('article', `turn ${role}`);
    const body = make('div', 'text', text);
    element.append(make('h3', '', role === 'user' ? 'You' : 'Model'), body);
    this.#log.append(element);
    this.#log.scrollTop = this.#log.scrollHeight;
    return { element, body };
  }
}
