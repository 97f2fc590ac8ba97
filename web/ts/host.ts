// The page's side of the workers: starts them, passes calls, and ends them all when one of them ends.

import { TwinferError, aborted, fromPlain, toPlain } from './errors.js';
import type { Calls, Event, FromThread, FromWorker, ToThread, ToWorker } from './protocol.js';
import type { BuildName } from './types.js';

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: TwinferError) => void;
  onEvent: (event: Event) => void;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
  onEvent?: (event: Event) => void;
}

export class Host {
  /** Settled when the workers have ended; with the reason, unless it was `end`. */
  readonly ended: Promise<TwinferError | null>;
  readonly #worker: Worker;
  readonly #threads: Worker[] = [];
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #error: TwinferError | null = null;
  #resolveEnded: (error: TwinferError | null) => void = () => undefined;
  readonly #watch = new AbortController();

  private constructor(
    readonly build: BuildName,
    readonly threads: number,
  ) {
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'twinfer' });
  }

  /** Starts the workers. */
  static async start(build: BuildName, threads: number, signal: AbortSignal | undefined): Promise<Host> {
    const host = new Host(build, threads);
    await host.#start(signal);
    return host;
  }

  async #start(signal: AbortSignal | undefined): Promise<void> {
    const lock = `twinfer-worker/${crypto.randomUUID()}`;
    await new Promise<void>((resolve, reject) => {
      const stop = () => {
        this.end();
        reject(aborted());
      };
      if (signal?.aborted) {
        stop();
        return;
      }
      signal?.addEventListener('abort', stop, { once: true });
      void this.ended.then((error) => reject(error ?? aborted()));
      this.#worker.onerror = (event) => {
        event.preventDefault();
        this.#die(event.message || 'its script could not be loaded');
      };
      this.#worker.onmessage = (message: MessageEvent<FromWorker>) => {
        const answer = message.data;
        if (answer.type === 'ready') {
          signal?.removeEventListener('abort', stop);
          if (answer.module && answer.memory) {
            this.#startThreads(answer.module, answer.memory);
          }
          this.#watchLock(lock);
          resolve();
        } else {
          this.#hear(answer);
        }
      };
      this.#post({ type: 'start', build: this.build, threads: this.threads, lock });
    });
  }

  #startThreads(module: WebAssembly.Module, memory: WebAssembly.Memory): void {
    for (let index = 1; index < this.threads; index++) {
      const thread = new Worker(new URL('./thread.js', import.meta.url), { type: 'module', name: `twinfer-${index}` });
      thread.onmessage = (message: MessageEvent<FromThread>) => this.#die(message.data.message);
      thread.onerror = (event) => {
        event.preventDefault();
        this.#die(event.message);
      };
      const enter: ToThread = { type: 'enter', build: this.build, module, memory, index };
      thread.postMessage(enter);
      this.#threads.push(thread);
    }
  }

  /** The worker holds this lock while it lives. */
  #watchLock(lock: string): void {
    navigator.locks
      ?.request(lock, { signal: this.#watch.signal }, () => this.#die('it was ended'))
      .catch(() => undefined);
  }

  #hear(answer: FromWorker): void {
    if (answer.type === 'dead') {
      this.#die(answer.message);
      return;
    }
    if (answer.type === 'ready') {
      return;
    }
    const pending = this.#pending.get(answer.id);
    if (answer.type === 'event') {
      pending?.onEvent(answer.event);
      return;
    }
    this.#pending.delete(answer.id);
    if (answer.type === 'result') {
      pending?.resolve(answer.value);
    } else {
      pending?.reject(fromPlain(answer.error));
    }
  }

  /** Calls the worker. An abort rejects at once; the worker stops after its present call of the engine. */
  call<Op extends keyof Calls>(op: Op, argument: Calls[Op][0], options: CallOptions = {}): Promise<Calls[Op][1]> {
    const { signal, onEvent = () => undefined } = options;
    if (this.#error) {
      return Promise.reject(this.#error);
    }
    if (signal?.aborted) {
      return Promise.reject(aborted());
    }
    const id = this.#next++;
    return new Promise<Calls[Op][1]>((resolve, reject) => {
      const abort = () => {
        this.#pending.delete(id);
        this.#post({ type: 'abort', id });
        reject(aborted());
      };
      const settled = () => signal?.removeEventListener('abort', abort);
      signal?.addEventListener('abort', abort, { once: true });
      this.#pending.set(id, {
        resolve: (value) => {
          settled();
          resolve(value as Calls[Op][1]);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
        onEvent,
      });
      this.#post({ type: 'call', id, op, argument });
    });
  }

  /** A load whose bytes the page reads from a stream. */
  feed(load: Calls['load'][0], reader: ReadableStreamDefaultReader<Uint8Array>, options: CallOptions): Promise<Calls['load'][1]> {
    const id = this.#next;
    const next = async () => {
      let bytes: Uint8Array | null = null;
      let error = null;
      try {
        const { done, value } = await reader.read();
        bytes = done ? null : value;
      } catch (reason) {
        error = { code: 'network' as const, message: `the stream failed: ${toPlain(reason).message}` };
      }
      // The buffer goes along without a copy, unless others share it.
      const whole = bytes !== null && bytes.byteLength === bytes.buffer.byteLength;
      const transfer = whole && bytes?.buffer instanceof ArrayBuffer ? [bytes.buffer] : [];
      this.#post({ type: 'chunk', id, bytes, error }, transfer);
    };
    return this.call('load', load, {
      ...options,
      onEvent: (event) => (event.type === 'wanted' ? void next() : options.onEvent?.(event)),
    }).finally(() => {
      reader.cancel().catch(() => undefined);
    });
  }

  /** Ends the workers. What is pending is rejected. */
  end(): void {
    this.#stop(new TwinferError('freed', 'the model was freed'), null);
  }

  #die(message: string): void {
    const error = new TwinferError('crashed', `the engine's worker ended: ${message}; load the model again`);
    this.#stop(error, error);
  }

  #stop(error: TwinferError, reason: TwinferError | null): void {
    if (this.#error) {
      return;
    }
    this.#error = error;
    this.#watch.abort();
    this.#worker.terminate();
    for (const thread of this.#threads) {
      thread.terminate();
    }
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) {
      reject(error);
    }
    this.#resolveEnded(reason);
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker.postMessage(message, transfer);
  }
}
