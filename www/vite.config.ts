import { defineConfig } from 'vite';

// Cross-origin isolation, which shared memory needs; `twinfer serve-demo` sends the same.
const headers = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

export default defineConfig({
  base: './',
  assetsInclude: ['**/*.gguf'],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  worker: { format: 'es' },
  // The package brings workers and wasm files that lie beside its scripts.
  optimizeDeps: { exclude: ['twinfer'] },
  server: { headers, fs: { allow: ['..'] } },
  preview: { headers },
});
