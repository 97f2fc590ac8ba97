// Numbers as people read them.

export function bytes(n: number): string {
  if (n >= 1e9) {
    return `${(n / 1e9).toFixed(2)} GB`;
  }
  return n >= 1e6 ? `${(n / 1e6).toFixed(n >= 1e8 ? 0 : 1)} MB` : `${Math.round(n / 1e3)} kB`;
}

export function count(n: number): string {
  if (n >= 1e9) {
    return `${(n / 1e9).toFixed(1)} billion`;
  }
  return n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : n.toLocaleString('en');
}

export function duration(seconds: number): string {
  if (seconds < 60) {
    return `${Math.ceil(seconds)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${(seconds / 3600).toFixed(1)} h`;
}
