// What this browser can do, found by asking it to validate tiny modules, and the build that follows from it.

import { TwinferError } from './errors.js';
import type { BuildName } from './types.js';

const magic = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
// A type () -> v128 or () -> (), one function, and its body.
const withBody = (result: number[], body: number[]) => [
  ...magic,
  1, 4 + result.length, 1, 0x60, 0, result.length, ...result,
  3, 2, 1, 0,
  10, 4 + body.length, 1, 2 + body.length, 0, ...body, 0x0b,
];
const v128 = 0x7b;
const zero = [0xfd, 12, ...Array<number>(16).fill(0)]; // v128.const

const simd = withBody([v128], zero);
// i16x8.relaxed_dot_i8x16_i7x16_s, the one relaxed instruction that the engine uses
const relaxed = withBody([v128], [...zero, ...zero, 0xfd, 0x92, 0x02]);
// A shared memory of one page, and atomic.fence.
const threads = [...magic, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 7, 1, 5, 0, 0xfe, 3, 0, 0x0b];

const valid = (bytes: number[]) => WebAssembly.validate(new Uint8Array(bytes));

export interface Features {
  simd: boolean;
  relaxedSimd: boolean;
  /** Shared memory can be used: the engine supports it and the page is cross-origin isolated. */
  threads: boolean;
  crossOriginIsolated: boolean;
  cores: number;
}

/** What this browser offers to this page. */
export function features(): Features {
  const isolated = globalThis.crossOriginIsolated === true;
  return {
    simd: valid(simd),
    relaxedSimd: valid(relaxed),
    threads: isolated && typeof SharedArrayBuffer === 'function' && valid(threads),
    crossOriginIsolated: isolated,
    cores: navigator.hardwareConcurrency || 1,
  };
}

/** The build and the number of threads for a wish: the best build that runs here, or the one that is asked for. */
export function choose(
  wish: number | undefined,
  build: BuildName | undefined,
  found: Features = features(),
): { build: BuildName; threads: number } {
  const threads = wish === undefined ? Math.min(found.cores, 8) : Math.max(1, Math.min(Math.floor(wish), 64));
  if (build !== undefined) {
    const runs: Record<BuildName, boolean> = {
      simd: found.simd,
      threads: found.threads,
      relaxed: found.threads && found.relaxedSimd,
    };
    if (!Object.hasOwn(runs, build) || !runs[build]) {
      throw new TwinferError('unsupported', `the build \`${build}\` does not run on this page`);
    }
    return { build, threads: build === 'simd' ? 1 : threads };
  }
  if (!found.threads || threads === 1) return { build: 'simd', threads: 1 };
  return { build: found.relaxedSimd ? 'relaxed' : 'threads', threads };
}
