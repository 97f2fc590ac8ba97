// The engine's wasm module inside a worker: which one, its memory, and panics.

import type { BuildName } from './types.js';

type Glue = typeof import('./wasm/simd/twinfer.js');

/** The module's own exports that the worker uses. */
export interface Wasm {
  Loading: Glue['Loading'];
  Sha256: Glue['Sha256'];
  startTeam: Glue['startTeam'];
  runWorker: Glue['runWorker'];
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

export type Loading = InstanceType<Glue['Loading']>;
export type Engine = ReturnType<Loading['finish']>;

/** The message of the last panic: what came before a trap. */
export let lastPanic = '';
(globalThis as { twinferPanic?: (message: string) => void }).twinferPanic = (message) => {
  lastPanic = message;
};

// Written out one by one, so that bundlers see the files.
const builds: Record<BuildName, { glue: () => Promise<unknown>; url: () => URL }> = {
  simd: {
    glue: () => import('./wasm/simd/twinfer.js'),
    url: () => new URL('./wasm/simd/twinfer_bg.wasm', import.meta.url),
  },
  threads: {
    glue: () => import('./wasm/threads/twinfer.js'),
    url: () => new URL('./wasm/threads/twinfer_bg.wasm', import.meta.url),
  },
  relaxed: {
    glue: () => import('./wasm/relaxed/twinfer.js'),
    url: () => new URL('./wasm/relaxed/twinfer_bg.wasm', import.meta.url),
  },
};

/** Compiles a build and makes an instance, or enters the memory of another one. */
export async function instantiate(
  build: BuildName,
  given?: { module: WebAssembly.Module; memory: WebAssembly.Memory },
): Promise<Wasm> {
  const { glue, url } = builds[build];
  const module = given?.module ?? (await compile(url()));
  const exports = (await glue()) as Glue;
  const instance = await (exports.default as (options: object) => Promise<{ memory: WebAssembly.Memory }>)({
    module_or_path: module,
    ...(given ? { memory: given.memory } : {}),
  });
  return { ...exports, module, memory: instance.memory };
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`the engine could not be fetched: ${url.pathname} gives status ${response.status}`);
  }
  // A server that does not know the type of .wasm files is no reason to fail.
  if (response.headers.get('content-type')?.startsWith('application/wasm')) {
    return WebAssembly.compileStreaming(response);
  }
  return WebAssembly.compile(await response.arrayBuffer());
}
