/**
 * Random histories of the hand-over to peers, step by step from a seed, on the SQL functions themselves: writers that commit,
 * roll back and wait for each other's keys; relays that crash in the middle of a turn, are replaced and go on; listeners that
 * come late, leave, run and do not, and handle what is theirs.
 *
 * Checked: each committed message is handled once, none that was rolled back, and each topic and key in the order of the
 * commits; within an epoch a channel has no gap.
 */
import pg from "pg";
import { Random } from "../../simulator/random.js";

const topics = ["t", "u"];
const keys = ["k1", "k2", "k3"];
const listenersOf: Readonly<Record<string, readonly string[]>> = { t: ["t-1", "t-2", "t-3"], u: ["u-1", "u-2"] };
const steps = 120;

/** How a turn is done. */
export interface HandOverDriver {
  /** The turn's row is written in a transaction of its own: a mutant. */
  readonly savesApart?: boolean;
}

interface Sent {
  readonly text: string;
  readonly lane: string | undefined;
}

interface Writer {
  readonly client: pg.Client;
  isOpen: boolean;
  /** Waits for a key. */
  waiting: Promise<void> | undefined;
  sent: Sent[];
  savepoint: number | undefined;
  lastKey: number;
}

interface Relay {
  readonly client: pg.Client;
  readonly owner: string;
  /** Its turn is not committed yet. */
  isInTurn: boolean;
  /** It takes over when that is. */
  taking: Promise<void> | undefined;
}

export class PeerHandOver implements AsyncDisposable {
  readonly #clients: pg.Client[] = [];
  readonly #url: string;
  readonly #driver: HandOverDriver;
  #random = new Random(0);
  #writers: Writer[] = [];
  #control!: pg.Client;
  #leases!: pg.Client;
  #relays: Relay[] = [];
  #handled: { readonly text: string; readonly lane: string | undefined }[] = [];
  /** What was committed, in the order of the commits. */
  #committed: Sent[] = [];
  #running = new Set<string>();
  #texts = 0;
  #lanes = new Map<string, string | undefined>();

  constructor(url: string, driver: HandOverDriver = {}) {
    this.#url = url;
    this.#driver = driver;
  }

  async open(): Promise<void> {
    this.#control = await this.#connected();
    this.#leases = await this.#connected();
    for (let nth = 0; nth < 4; nth++) {
      const client = await this.#connected();
      this.#writers.push({ client, isOpen: false, waiting: undefined, sent: [], savepoint: undefined, lastKey: -1 });
    }
    for (const owner of ["one", "two"])
      this.#relays.push({ client: await this.#connected(), owner, isInTurn: false, taking: undefined });
    await this.#control.query("CREATE TABLE IF NOT EXISTS public.apart (LIKE hawser.peer_outbox_turns)");
    await this.#control.query("GRANT ALL ON public.apart TO PUBLIC");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }

  /** @throws Error that says what went wrong */
  async run(seed: number): Promise<void> {
    this.#random = new Random(seed);
    await this.#reset();
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#finish();
    this.#check();
  }

  async #connected(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#url, statement_timeout: 5_000 });
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  async #reset(): Promise<void> {
    this.#handled = [];
    this.#committed = [];
    this.#running.clear();
    await this.#leases.query(
      "SELECT hawser.release_name(substr(o.what, 6), true) FROM hawser.owners AS o WHERE o.what LIKE 'peer:%'",
    );
    for (const writer of this.#writers) {
      await writer.client.query("ROLLBACK");
      Object.assign(writer, { isOpen: false, waiting: undefined, sent: [], savepoint: undefined, lastKey: -1 });
    }
    for (const relay of this.#relays) {
      await relay.taking?.catch(() => undefined);
      await relay.client.query("ROLLBACK");
      Object.assign(relay, { isInTurn: false, taking: undefined });
    }
    await this.#control.query(
      `TRUNCATE hawser.peer_outbox, hawser.conn_messages, hawser.topic_addr, hawser.sender_listener, hawser.peer_waiting_topics,
                hawser.conn_key_map, hawser.conn_mess_number, public.apart`,
    );
    await this.#take(this.#relays[0]!);
  }

  async #step(): Promise<void> {
    const kind = this.#random.next();
    if (kind < 0.45) await this.#write(this.#random.pick(this.#writers));
    else if (kind < 0.65) await this.#relay();
    else if (kind < 0.85) await this.#handle(this.#random.between(1, 4));
    else if (kind < 0.97) await this.#list();
    else await this.#rotate();
  }

  // ---- writers ----

  async #write(writer: Writer): Promise<void> {
    const { client } = writer;
    const random = this.#random;
    if (writer.waiting !== undefined) return;
    if (!writer.isOpen) {
      await client.query("BEGIN");
      Object.assign(writer, { isOpen: true, sent: [], savepoint: undefined, lastKey: -1 });
      if (random.chance(0.5)) await client.query("SELECT pg_current_xact_id()");
      return;
    }
    const kind = random.next();
    if (kind < 0.65) this.#enqueue(writer);
    else if (kind < 0.72) {
      await client.query("SAVEPOINT s");
      writer.savepoint = writer.sent.length;
    } else if (kind < 0.8 && writer.savepoint !== undefined) {
      await client.query("ROLLBACK TO s");
      writer.sent.length = writer.savepoint;
    } else await this.#end(writer, random.chance(0.8));
    await this.#settled();
  }

  #enqueue(writer: Writer): void {
    const random = this.#random;
    const topic = random.pick(topics);
    // In one order, so that no two wait for each other.
    const place = topics.indexOf(topic) * keys.length + random.between(0, keys.length - 1);
    const isKeyed = random.chance(0.7) && place >= writer.lastKey;
    const key = isKeyed ? keys[place % keys.length] : undefined;
    if (isKeyed) writer.lastKey = place;
    const text = `m${++this.#texts}`;
    const lane = key === undefined ? undefined : `${topic} ${key}`;
    this.#lanes.set(text, lane);
    writer.waiting = writer.client
      .query("SELECT hawser.peer_enqueue_text($1, $2, key => $3)", [topic, text, key ?? null])
      .then(() => {
        writer.sent.push({ text, lane });
        writer.waiting = undefined;
      });
  }

  async #end(writer: Writer, isCommit: boolean): Promise<void> {
    await writer.client.query(isCommit ? "COMMIT" : "ROLLBACK");
    if (isCommit) this.#committed.push(...writer.sent);
    writer.isOpen = false;
    await this.#settled();
  }

  /** Those who do not wait for a key have their answers. */
  async #settled(): Promise<void> {
    for (const writer of this.#writers) {
      if (writer.waiting === undefined) continue;
      const blocked = async (): Promise<boolean> => {
        const pid = (writer.client as unknown as { processID: number }).processID;
        const { rows } = await this.#control.query("SELECT cardinality(pg_blocking_pids($1)) > 0 AS blocked", [pid]);
        return rows[0].blocked;
      };
      const { waiting } = writer;
      while (writer.waiting === waiting && !(await blocked()))
        await Promise.race([waiting, this.#control.query("SELECT 1")]);
    }
  }

  // ---- relays ----

  async #relay(): Promise<void> {
    const random = this.#random;
    const relay = random.pick(this.#relays);
    if (relay.taking !== undefined) return;
    if (relay.isInTurn) {
      relay.isInTurn = false;
      await relay.client.query(random.chance(0.6) ? "COMMIT" : "ROLLBACK");
      for (const { taking } of this.#relays) await taking;
      return;
    }
    if (random.chance(0.15)) {
      await this.#take(relay);
      return;
    }
    await relay.client.query("BEGIN");
    if (this.#relays.some(({ isInTurn }) => isInTurn)) {
      // Another one is in the middle of its turn. If both could have theirs, one might wait for the other.
      await relay.client.query("SET LOCAL lock_timeout = 50");
      const isDone = await this.#turn(relay).then(
        () => true,
        () => false,
      );
      await relay.client.query(isDone ? "COMMIT" : "ROLLBACK");
      return;
    }
    await this.#turn(relay);
    if (random.chance(0.25)) relay.isInTurn = true;
    else await relay.client.query(random.chance(0.85) ? "COMMIT" : "ROLLBACK");
    if (!relay.isInTurn) await this.#saveApart();
  }

  async #take(relay: Relay): Promise<void> {
    const taking = relay.client.query("SELECT hawser.take_peer_outbox($1)", [relay.owner]).then(
      () => undefined,
      () => undefined,
    );
    if (!this.#relays.some(({ isInTurn }) => isInTurn)) {
      await taking;
      return;
    }
    // It waits for the turn that is open.
    relay.taking = taking.then(() => {
      relay.taking = undefined;
    });
  }

  async #turn(relay: Relay, maxMessages = this.#random.pick([1, 2, 5, 100])): Promise<boolean> {
    const { rows } = await relay.client.query(
      "SELECT * FROM hawser.hand_over_enqueued($1, NULL, $2, 1000000, NULL, NULL)",
      [relay.owner, maxMessages],
    );
    return rows[0].held && (rows[0].handed > 0 || rows[0].has_more);
  }

  /** Of the mutant that saves the position in another transaction. */
  async #saveApart(): Promise<void> {
    if (this.#driver.savesApart !== true) return;
    if (this.#random.chance(0.8))
      await this.#control.query(
        "INSERT INTO hawser.peer_outbox_turns SELECT * FROM public.apart ON CONFLICT DO NOTHING",
      );
    await this.#control.query("TRUNCATE public.apart");
  }

  async #rotate(): Promise<void> {
    const relay = this.#random.pick(this.#relays);
    if (relay.isInTurn || relay.taking !== undefined) return;
    await relay.client.query("SELECT hawser.rotate_peer_outbox($1, 0)", [relay.owner]);
  }

  // ---- listeners ----

  async #list(): Promise<void> {
    const random = this.#random;
    // A turn that has remembered a listener keeps its row until it ends.
    if (this.#relays.some(({ isInTurn }) => isInTurn)) return;
    const topic = random.pick(topics);
    const name = random.pick(listenersOf[topic]!);
    if (random.chance(0.4)) await this.#control.query("DELETE FROM hawser.topic_addr WHERE client_name = $1", [name]);
    else
      await this.#control.query(
        "INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING",
        [topic, name],
      );
    if (this.#running.has(name) !== random.chance(0.6)) return;
    const isRunning = this.#running.has(name);
    if (isRunning) this.#running.delete(name);
    else this.#running.add(name);
    const call = isRunning ? "release_name($1, true)" : "own_name($1, 'twin', 1)";
    await this.#leases.query(`SELECT FROM hawser.${call}`, [name]);
  }

  /** Some channel's listener handles its next messages, and commits its cursor with that. */
  async #handle(count: number): Promise<boolean> {
    const { rows: channels } = await this.#control.query<{ key: number }>(
      `SELECT DISTINCT m.connection_key AS key FROM hawser.conn_messages AS s JOIN hawser.conn_key_map AS m USING (connection_key)
        WHERE NOT starts_with(coalesce(m.owner, m.listener_name), '__#') ORDER BY 1`,
    );
    if (channels.length === 0) return false;
    const { key } = this.#random.pick(channels);
    const { rows } = await this.#control.query<{ epoch: string; number: string; text: string; before: string }>(
      `SELECT s.epoch, s.number, convert_from(s.payload, 'UTF8') AS text,
              coalesce(CASE WHEN c.epoch = s.epoch THEN c.v END, 0) AS before
         FROM hawser.conn_messages AS s LEFT JOIN hawser.conn_mess_number AS c USING (connection_key)
        WHERE s.connection_key = $1 AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.v, 0))
        ORDER BY s.epoch, s.number LIMIT $2`,
      [key, count],
    );
    let before = rows[0] === undefined ? undefined : { epoch: rows[0].epoch, number: rows[0].before };
    for (const { epoch, number, text } of rows) {
      const expected = before?.epoch === epoch ? BigInt(before.number) + 1n : 1n;
      if (BigInt(number) !== expected)
        throw new Error(`channel ${key} has number ${number} of epoch ${epoch}, not ${expected}`);
      before = { epoch, number };
      this.#handled.push({ text, lane: this.#lanes.get(text) });
    }
    const last = rows.at(-1);
    if (last === undefined) throw new Error(`channel ${key} has messages at or below its cursor`);
    await this.#control.query(
      `WITH moved AS (
         INSERT INTO hawser.conn_mess_number (connection_key, epoch, v) VALUES ($1, $2, $3)
         ON CONFLICT (connection_key) DO UPDATE SET epoch = excluded.epoch, v = excluded.v
       )
       DELETE FROM hawser.conn_messages WHERE connection_key = $1 AND (epoch, number) <= ($2, $3)`,
      [key, last.epoch, last.number],
    );
    return true;
  }

  // ---- the end ----

  async #finish(): Promise<void> {
    for (const relay of this.#relays) {
      if (!relay.isInTurn) continue;
      relay.isInTurn = false;
      await relay.client.query("COMMIT");
    }
    for (const relay of this.#relays) await relay.taking;
    await this.#saveApart();
    while (this.#writers.some(({ isOpen }) => isOpen)) {
      for (const writer of this.#writers)
        if (writer.isOpen && writer.waiting === undefined) await this.#end(writer, true);
      await this.#settled();
    }
    const [relay] = this.#relays;
    await this.#take(relay!);
    for (const topic of topics)
      await this.#control.query(
        "INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING",
        [topic, listenersOf[topic]![0]],
      );
    for (let turns = 0; await this.#turn(relay!, 3); turns++) {
      await this.#control.query(
        "INSERT INTO hawser.peer_outbox_turns SELECT * FROM public.apart ON CONFLICT DO NOTHING",
      );
      if (turns > 1_000) throw new Error("the relay finds messages again and again");
    }
    while (await this.#handle(100));
  }

  #check(): void {
    const committed = new Map(this.#committed.map((sent, nth) => [sent.text, nth]));
    const handled = new Set<string>();
    const last = new Map<string, string>();
    for (const { text, lane } of this.#handled) {
      const nth = committed.get(text);
      if (nth === undefined) throw new Error(`${text} was handled, and was rolled back`);
      if (handled.has(text)) throw new Error(`${text} was handled twice`);
      handled.add(text);
      if (lane === undefined) continue;
      const before = last.get(lane);
      if (before !== undefined && committed.get(before)! > nth)
        throw new Error(`${text} of "${lane}" was handled behind ${before}, and committed before it`);
      last.set(lane, text);
    }
    for (const { text } of this.#committed)
      if (!handled.has(text)) throw new Error(`${text} was committed, and never handled`);
  }
}
