/**
 * Random histories of what relays for NATS read, step by step from a seed, on the SQL functions themselves: writers of several
 * roles with bursts that are larger than a page, turns that are repeated, relays that are replaced in the middle, and segments that
 * are emptied while some roles and routes lag behind.
 *
 * A relay here does what it reads at once, and keeps a position for each series. Checked: what was committed comes, once unless a
 * position was not saved, nothing that was rolled back, and each lane in the order of the commits; and what the database takes
 * for undone is what is undone.
 */
import pg from "pg";
import { checkHistory, type Sent, Writers } from "../../queue/support/writers.js";
import { Random } from "../../simulator/random.js";
import { natsTurn, type Position, type ReadMessage, type Series, takeNats } from "./turns.js";

const steps = 120;
const calls = [
  { destination: "s.a", sql: "SELECT hawser.enqueue_batch($1, $2::text[], stream => false, key => $3)" },
  { destination: "s.b", sql: "SELECT hawser.enqueue_batch($1, $2::text[], stream => true, key => $3)" },
  {
    destination: "s.b",
    sql: "SELECT hawser.enqueue_batch($1, $2::text[], stream => true, key => $3, domain => 'hub')",
    domain: "hub",
  },
];

/** A series, and whether it is left out of polls for now. */
interface Split extends Series {
  readonly isHeld: boolean;
}

interface Memory {
  readonly owner: string;
  turn: bigint;
  from: string;
  splits: Split[];
}

export class NatsReading implements AsyncDisposable {
  readonly #url: string;
  readonly #writers: Writers;
  #random = new Random(0);
  #client!: pg.Client;
  #control!: pg.Client;
  #relay!: Memory;
  #came: Sent[] = [];
  /** Ids of what is done as far as the database knows, or will with the next turn. */
  #done = new Set<string>();
  #owners = 0;

  constructor(url: string) {
    this.#url = url;
    this.#writers = new Writers({
      url,
      memberOf: "hawser_nats",
      calls: calls.map((call) => ({ ...call, values: (payloads, key) => [call.destination, payloads, key] })),
    });
  }

  async open(): Promise<void> {
    await this.#writers.open();
    this.#client = new pg.Client({ connectionString: this.#url });
    this.#control = new pg.Client({ connectionString: this.#url });
    await this.#client.connect();
    await this.#control.connect();
    await this.#client.query("SET ROLE hawser_bridge");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writers[Symbol.asyncDispose]();
    await this.#client.end();
    await this.#control.end();
  }

  /** @throws Error that says what went wrong */
  async run(seed: number): Promise<void> {
    this.#random = new Random(seed);
    this.#came = [];
    this.#done.clear();
    await this.#writers.reset(this.#random);
    await this.#control.query("TRUNCATE hawser_data.outbox");
    await this.#take();
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#writers.finish();
    for (let turns = 0; await this.#turn(true); turns++)
      if (turns > 1_000) throw new Error("it finds messages again and again");
    await this.#save();
    await this.#checkUndone();
    checkHistory(this.#writers.committed, this.#came);
  }

  async #step(): Promise<void> {
    const kind = this.#random.next();
    if (kind < 0.5) await this.#writers.step();
    else if (kind < 0.88) await this.#turn(false);
    else if (kind < 0.94) {
      // What is not saved would come again.
      await this.#save();
      await this.#take();
    } else await this.#rotate();
  }

  async #take(): Promise<void> {
    const owner = `relay ${++this.#owners}`;
    const { turn, position } = await takeNats(this.#client, owner);
    const { from, series } = position;
    this.#relay = {
      owner,
      turn,
      from,
      splits: series.map((one) => ({ ...one, isHeld: false })),
    };
  }

  /** All that was read is done. */
  get #position(): Position {
    const { from, splits } = this.#relay;
    const series = splits.map(({ isHeld: _, ...one }) => one);
    return { from, to: null, after: "0", series, skipped: [] };
  }

  async #save(): Promise<void> {
    const { owner } = this.#relay;
    this.#relay.turn += 1n;
    const step = { turn: this.#relay.turn, position: this.#position, mustSave: true };
    const { state } = await natsTurn(this.#client, owner, step);
    if (state !== "saved") throw new Error(`a turn was ${state}, and not saved`);
    if (this.#random.chance(0.2)) {
      const again = await natsTurn(this.#client, owner, step);
      if (again.state !== "repeated") throw new Error(`a turn was ${again.state}, and not repeated`);
    }
    await this.#checkUndone();
  }

  /** @returns whether there may be more */
  async #turn(isLast: boolean): Promise<boolean> {
    const random = this.#random;
    const relay = this.#relay;
    const lagging = relay.splits.filter(({ to }) => to !== null);
    const maxMessages = random.pick([1, 2, 5, 100]);
    const position = this.#position;
    if (lagging.length > 0 && random.chance(0.5)) {
      const split = random.pick(lagging);
      const { role, route, from, to, after } = split;
      const own = relay.splits.filter((one) => one.role === role && one.route !== null && route === null);
      const read = { kind: "page", role, route, excluded: own.map((one) => one.route!), from, to: to!, after } as const;
      const found = await this.#run(position, { read, maxMessages });
      this.#deliver(found.messages);
      const last = found.messages.at(-1)?.id ?? after;
      this.#replace(
        split,
        found.hasMore
          ? { ...split, after: last }
          : { ...split, from: to!, to: null, after: "0", isHeld: random.chance(0.3) },
      );
      return true;
    }
    const series = relay.splits.map(({ role, route, from, to, isHeld }) => ({
      role,
      route,
      from,
      joins: to === null && (isLast || !isHeld),
    }));
    const found = await this.#run(position, {
      read: { kind: "poll", from: relay.from, series },
      maxMessages,
    });
    this.#deliver(found.messages);
    const mainFrom = relay.from;
    const isRest = (one: { role: string; route: string | null }) =>
      found.rest.some(({ role, route }) => role === one.role && route === one.route);
    const kept = relay.splits.filter((_, nth) => !series[nth]!.joins);
    const rest = found.rest.map(({ role, route, after }) => {
      const before = relay.splits.find((one) => one.role === role && one.route === route);
      return { role, route, from: before?.from ?? mainFrom, to: found.to, after: `${after}`, isHeld: false };
    });
    for (const one of kept) if (isRest(one)) throw new Error(`${one.role} was left out, and has a rest`);
    // What has joined and has no rest is main's again, but a route stays apart from a series of its role that lags.
    const apart = relay.splits.flatMap((one, nth) => {
      const lags = [...kept, ...rest].some(({ role, route }) => role === one.role && route === null);
      const stays = series[nth]!.joins && !isRest(one) && one.route !== null && lags;
      return stays ? [{ ...one, from: found.to, to: null, after: "0", isHeld: false }] : [];
    });
    relay.splits = [...kept, ...rest, ...apart];
    relay.from = found.to;
    // Now and then a route of a role goes its own way, from where its role is.
    if (!isLast && random.chance(0.15) && found.messages.length > 0) this.#split(random.pick(found.messages));
    return found.messages.length > 0 || relay.splits.some(({ to }) => to !== null) || kept.length > 0;
  }

  #split({ role, destination, domain }: ReadMessage): void {
    const route = domain === null ? destination : `domain ${domain}`;
    const { splits, from } = this.#relay;
    if (splits.some((one) => one.role === role && one.route === route)) return;
    const of = splits.find((one) => one.role === role && one.route === null);
    splits.push({
      role,
      route,
      from: of?.from ?? from,
      to: of?.to ?? null,
      after: of?.after ?? "0",
      isHeld: this.#random.chance(0.5),
    });
  }

  #replace(one: Split, other: Split): void {
    this.#relay.splits = this.#relay.splits.map((split) => (split === one ? other : split));
  }

  async #run(
    position: Position,
    step: Pick<Parameters<typeof natsTurn>[2], "read" | "maxMessages">,
  ): Promise<Awaited<ReturnType<typeof natsTurn>>> {
    this.#relay.turn += 1n;
    const outcome = await natsTurn(this.#client, this.#relay.owner, { turn: this.#relay.turn, position, ...step });
    if (outcome.state !== "saved" && outcome.state !== "read") throw new Error(`a turn was ${outcome.state}`);
    if (outcome.state === "read") this.#relay.turn -= 1n;
    else await this.#checkUndone();
    return outcome;
  }

  #deliver(messages: readonly ReadMessage[]): void {
    for (const { id, text } of messages) {
      this.#came.push(this.#writers.sent(text!));
      this.#done.add(id);
    }
  }

  /** Checks that exactly the committed messages that have not come are undone, and wait, if one looks for them. */
  async #checkUndone(): Promise<void> {
    const { rows } = await this.#control.query<{ id: string; isUndone: boolean; waits: boolean }>(
      `SELECT o.id, u.id IS NOT NULL AS "isUndone", f.waits
         FROM hawser_data.outbox AS o
         LEFT JOIN hawser.outbox_undone(NULL, 100000, NULL) AS u ON u.id = o.id
         LEFT JOIN LATERAL hawser.outbox_find(o.id, NULL, 10) AS f ON true ORDER BY o.id`,
    );
    const ids = rows.map(({ id }) => id);
    if (new Set(ids).size !== ids.length) throw new Error("a message is there twice");
    for (const { id, isUndone, waits } of rows) {
      if (waits !== isUndone) throw new Error(`the search takes ${id} for ${waits ? "undone" : "done"}, and it is not`);
      if (isUndone && this.#done.has(id))
        throw new Error(`the database takes ${id} for undone, which came twice or is done`);
      if (!isUndone && !this.#done.has(id)) throw new Error(`the database takes ${id} for done, which never came`);
    }
  }

  async #rotate(): Promise<void> {
    for (let times = this.#random.between(1, 3); times > 0; times--)
      await this.#client.query("SELECT hawser.outbox_rotate($1, 0)", [this.#relay.owner]);
  }
}
