/**
 * Another client that takes every connection that Postgres has left.
 */
import pg from "pg";

export interface ConnectionHog extends AsyncDisposable {
  /** Takes connections until there are none, and from then on each one that becomes free. */
  takeAll(): Promise<void>;
  /** Runs a statement on a connection that it has. */
  query(text: string): Promise<void>;
  /** Gives all back. */
  leave(): Promise<void>;
}

const tooManyConnections = "53300";

/** Creates a hog with its first connection. */
export async function connectionHog(url: string): Promise<ConnectionHog> {
  const taken: pg.Client[] = [];
  let takes = false;
  let taking: Promise<void> = Promise.resolve();
  /** Opens a connection. @returns false if the server has none left */
  const take = async (): Promise<boolean> => {
    const client = new pg.Client({ connectionString: url, application_name: "hog" });
    client.on("error", () => undefined);
    try {
      await client.connect();
    } catch (error) {
      if ((error as { code?: string }).code === tooManyConnections) return false;
      throw error;
    }
    taken.push(client);
    return true;
  };
  const keepTaking = async (): Promise<void> => {
    while (takes) if (!(await take())) await new Promise((resolve) => setImmediate(resolve));
  };
  const leave = async (): Promise<void> => {
    takes = false;
    await taking;
    await Promise.all(taken.splice(0).map((client) => client.end()));
  };
  await take();
  return {
    async takeAll() {
      while (await take()) {}
      if (takes) return;
      takes = true;
      taking = keepTaking();
    },
    async query(text) {
      await taken[0]?.query(text);
    },
    leave,
    [Symbol.asyncDispose]: leave,
  };
}
