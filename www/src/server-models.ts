// Models that the page's own server offers (`twinfer serve-demo`); other servers have no such list.

export interface ServerModel {
  name: string;
  bytes: number | null;
}

export async function serverModels(): Promise<ServerModel[]> {
  try {
    const response = await fetch('./models', { headers: { accept: 'application/json' } });
    if (!response.ok || !response.headers.get('content-type')?.startsWith('application/json')) {
      return [];
    }
    const { models } = (await response.json()) as { models?: ServerModel[] };
    return Array.isArray(models) ? models : [];
  } catch {
    return [];
  }
}
