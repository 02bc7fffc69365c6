/** Database roles that enqueue at the same rate, beside one that enqueues as much as it can, and what the others notice. */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";

export const honest = ["ann", "bob", "cyd"] as const;
export const hostile = "mal";

/** How long the roles enqueue, in seconds. */
export const enqueuingSeconds = Number(process.env["HAWSER_ROLES_SECONDS"] ?? 10);
/** Messages a second of each role. */
const perSecond = 50;

/** Creates a login for each of the roles. @param memberOf roles that may enqueue */
export async function createRoles(admin: pg.Client, memberOf: string): Promise<void> {
  for (const role of [...honest, hostile])
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD '${role}' IN ROLE ${memberOf}`);
}

/**
 * Messages of the honest roles, and how many of the hostile one arrive between the call that enqueues one of them and its own
 * arrival: no clock, so that it is the same on a slow machine.
 */
export class Overtaken {
  /** Messages that have not arrived, each with how many hostile ones had when it was enqueued. */
  readonly #missing = new Map<string, number>();
  readonly #sent = new Set<string>();
  readonly #between: number[] = [];
  #ofHostile = 0;

  /** Number of messages of the honest roles that have not arrived. */
  get missing(): number {
    return this.#missing.size;
  }

  /** Notes that a message of an honest role is about to be enqueued. */
  sent(text: string): void {
    this.#sent.add(text);
    this.#missing.set(text, this.#ofHostile);
  }

  /** Notes that a message of any role has arrived. */
  arrived(text: string): void {
    const before = this.#missing.get(text);
    if (before !== undefined) this.#between.push(this.#ofHostile - before);
    else if (!this.#sent.has(text)) this.#ofHostile += 1;
    this.#missing.delete(text);
  }

  /** Prints the result. @returns how many hostile messages came before half of the others */
  report(): number {
    const sorted = this.#between.toSorted((one, other) => one - other);
    const half = sorted[sorted.length >> 1] ?? Number.POSITIVE_INFINITY;
    console.log(
      `${sorted.length} messages beside a role that attacks; between one and its arrival ${half} of its ${this.#ofHostile} came in the median, ${sorted.at(-1)} at most`,
    );
    return half;
  }
}

/**
 * Lets all roles enqueue, each one message after another, while the hostile one repeats its attack.
 *
 * @param enqueue enqueues a message of a role
 * @param attack statements of a round; `$1` is its number
 */
export async function enqueueBesideAttack(
  url: string,
  overtaken: Overtaken,
  enqueue: (client: pg.Client, role: string, text: string, key: string) => Promise<unknown>,
  attack: readonly string[],
): Promise<void> {
  const ending = new AbortController();
  const write = async (role: string): Promise<void> => {
    await using client = await connected(url, role);
    const startedAt = performance.now();
    for (let nth = 0; !ending.signal.aborted; nth += 1) {
      await delay(Math.max(0, startedAt + (nth * 1_000) / perSecond - performance.now()));
      const text = `${role} ${nth}`;
      if (role !== hostile) overtaken.sent(text);
      await enqueue(client, role, text, `k${nth % 10}`);
    }
  };
  const attackAlways = async (): Promise<void> => {
    await using client = await connected(url, hostile);
    for (let round = 0; !ending.signal.aborted; round += 1) {
      for (const text of attack) await client.query(text, text.includes("$1") ? [`${round}`] : []);
      await delay(500);
    }
  };
  const working = Promise.all([attackAlways(), ...[...honest, hostile].map(write)]);
  await Promise.race([working, delay(enqueuingSeconds * 1_000)]);
  ending.abort();
  await working;
}

/** Connects as a role whose password is its name. */
export async function connected(url: string, role: string): Promise<pg.Client & AsyncDisposable> {
  const own = new URL(url);
  own.username = role;
  own.password = role;
  const client = new pg.Client({ connectionString: own.href });
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}
