/**
 * Random histories of the hand-over to peers, step by step from a seed, on the SQL functions themselves: writers of several
 * roles, with bursts that are larger than a page; relays that crash in the middle of a turn, are replaced and go on; segments that
 * are emptied; listeners that come late, leave, run and do not, are durable and are not, are members of one of two groups and are
 * none, claim as members, and handle what is theirs.
 *
 * Checked: each committed message is handled once, none that was rolled back, and each role, topic and key in the order of the
 * commits; within an epoch a channel has no gap, except where members claim. Of messages for all, each listener that the directory
 * had at the hand-over, durable or running, and each group handles one copy, in the order of its key; members claim only copies of
 * their group.
 */
import pg from "pg";
import { Random } from "../../simulator/random.js";
import { peerTurn, takePeers } from "./turns.js";
import { checkHistory, type Sent, Writers } from "./writers.js";

const topics = ["t", "u"];
const listenersOf: Readonly<Record<string, readonly string[]>> = {
  t: ["t-1", "t-2", "t-3"],
  u: ["u-1", "u-2", "u-3"],
};
const names = Object.values(listenersOf).flat();
const groups = ["red", "blue"];
const steps = 120;

/**
 * Notes who has a message for all at its hand-over, and for whom what is claimed was: as the tables say it, not the functions that
 * are tested.
 */
const witnessSql = `
  CREATE TABLE IF NOT EXISTS public.known (text text PRIMARY KEY, recipients text[] NOT NULL);
  CREATE TABLE IF NOT EXISTS public.claimed (
    channel_id integer, epoch bigint, number bigint, for_group text NOT NULL, member_group text
  );
  GRANT ALL ON public.known, public.claimed TO PUBLIC;
  CREATE OR REPLACE FUNCTION public.handed() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO public.known (text, recipients)
    SELECT n.text, r.recipients
      FROM (
        SELECT t.topic_id, array_remove(array_agg(DISTINCT CASE
                 WHEN p.group_name IS NOT NULL THEN 'group ' || p.group_name
                 WHEN a.durable OR a.listener_name = ANY (r.running) THEN 'listener ' || a.listener_name
               END), NULL) AS recipients
          FROM (SELECT DISTINCT n.topic_id FROM new_rows AS n) AS t
          JOIN hawser_data.topics AS k ON k.id = t.topic_id
          JOIN hawser_data.listeners AS a ON a.topic = k.topic
          LEFT JOIN hawser_data.peers AS p ON p.name = a.listener_name
         CROSS JOIN hawser.running_peers(ARRAY(SELECT d.listener_name FROM hawser_data.listeners AS d)) AS r (running)
         GROUP BY t.topic_id
      ) AS r
      JOIN (SELECT DISTINCT s.topic_id, convert_from(s.payload, 'UTF8') AS text FROM new_rows AS s) AS n USING (topic_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
  END
  $$;
  CREATE OR REPLACE TRIGGER handed AFTER INSERT ON hawser_data.stored_messages REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION public.handed();
  CREATE OR REPLACE FUNCTION public.claims() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO public.claimed (channel_id, epoch, number, for_group, member_group)
    SELECT n.channel_id, n.epoch, n.number, w.for_group, p.group_name
      FROM new_rows AS n
      JOIN old_rows AS o ON o.payload = n.payload
      JOIN hawser_data.peer_waiting_topics AS w ON w.channel_id = o.channel_id
      JOIN hawser_data.channels AS m ON m.channel_id = n.channel_id
      JOIN hawser_data.peers AS p ON p.name = m.listener_name;
    RETURN NULL;
  END
  $$;
  CREATE OR REPLACE TRIGGER claims AFTER UPDATE ON hawser_data.stored_messages REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION public.claims()`;

/** A session in which members claim. */
interface Claimer {
  readonly client: pg.Client;
  /** Whose claim is not committed yet, or waits for another one. */
  member: string | undefined;
  waiting: Promise<void> | undefined;
}

/** Driver of the turns. */
export interface HandOverDriver {
  /** The turn's row is written in a transaction of its own: a mutant. */
  readonly savesApart?: boolean;
}

interface Relay {
  readonly client: pg.Client;
  readonly owner: string;
  /** Its turn is not committed yet. */
  isInTurn: boolean;
  /** Pending takeover or turn, which another turn blocks. */
  waiting: Promise<void> | undefined;
}

export class PeerHandOver implements AsyncDisposable {
  readonly #clients: pg.Client[] = [];
  readonly #url: string;
  readonly #driver: HandOverDriver;
  #random = new Random(0);
  #control!: pg.Client;
  #leases!: pg.Client;
  #relays: Relay[] = [];
  readonly #claimers: Claimer[] = [];
  readonly #writers: Writers;
  #handled: { readonly message: Sent; readonly recipient: string }[] = [];
  #running = new Set<string>();

  constructor(url: string, driver: HandOverDriver = {}) {
    this.#url = url;
    this.#driver = driver;
    const calls = topics.flatMap((topic) =>
      [false, false, true].map((isToAll) => ({
        sql: "SELECT hawser.enqueue_batch($1, $2::text[], key => $3, to_all => $4::boolean)",
        values: (payloads: readonly string[], key: string | null) => [topic, payloads, key, isToAll],
        destination: topic,
        isToAll,
      })),
    );
    this.#writers = new Writers({ url, memberOf: "hawser_peer", calls });
  }

  async open(): Promise<void> {
    this.#control = await this.#connected();
    this.#leases = await this.#connected();
    await this.#writers.open();
    for (const owner of ["one", "two"])
      this.#relays.push({ client: await this.#connected(), owner, isInTurn: false, waiting: undefined });
    for (let nth = 0; nth < 2; nth++)
      this.#claimers.push({ client: await this.#connected(), member: undefined, waiting: undefined });
    await this.#control.query(
      "CREATE TABLE IF NOT EXISTS public.apart (LIKE hawser_data.outbox_turns INCLUDING DEFAULTS)",
    );
    await this.#control.query("GRANT ALL ON public.apart TO PUBLIC");
    await this.#control.query(witnessSql);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writers[Symbol.asyncDispose]();
    await Promise.all(this.#clients.map((client) => client.end()));
  }

  /** @throws Error that says what went wrong */
  async run(seed: number): Promise<void> {
    this.#random = new Random(seed);
    await this.#reset();
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#finish();
    await this.#check();
  }

  async #connected(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#url, statement_timeout: 60_000 });
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  async #reset(): Promise<void> {
    this.#handled = [];
    this.#running.clear();
    await this.#leases.query(
      "SELECT hawser.release_name(substr(o.what, 6), true) FROM hawser_data.owners AS o WHERE o.what LIKE 'peer:%'",
    );
    await this.#writers.reset(this.#random);
    for (const relay of this.#relays) {
      await relay.waiting?.catch(() => undefined);
      await relay.client.query("ROLLBACK");
      Object.assign(relay, { isInTurn: false, waiting: undefined });
    }
    for (const claimer of this.#claimers) {
      await claimer.waiting?.catch(() => undefined);
      await claimer.client.query("ROLLBACK");
      Object.assign(claimer, { member: undefined, waiting: undefined });
    }
    await this.#control.query(
      `TRUNCATE hawser_data.outbox, hawser_data.stored_messages, hawser_data.listeners, hawser_data.routes, hawser_data.peer_waiting_topics,
                hawser_data.channels, hawser_data.cursors, hawser_data.peers, public.apart, public.known, public.claimed`,
    );
    // A claim that is open would keep the relay from making keys, and the listener from making its cursor.
    for (const name of names)
      await this.#control.query(
        `SELECT FROM hawser.open_channel('__#outbox', '__#claimed', $1) AS k
          CROSS JOIN LATERAL hawser.lock_cursors(ARRAY[k.channel_id])`,
        [name],
      );
    await this.#take(this.#relays[0]!);
  }

  async #step(): Promise<void> {
    const kind = this.#random.next();
    if (kind < 0.35) await this.#writers.step();
    else if (kind < 0.57) await this.#relay();
    else if (kind < 0.7) await this.#claim();
    else if (kind < 0.83) await this.#handle(this.#random.between(1, 4));
    else if (kind < 0.94) await this.#list();
    else await this.#rotate();
  }

  // ---- relays ----

  async #relay(): Promise<void> {
    const random = this.#random;
    const relay = random.pick(this.#relays);
    if (relay.waiting !== undefined) return;
    if (relay.isInTurn) {
      relay.isInTurn = false;
      await relay.client.query(random.chance(0.6) ? "COMMIT" : "ROLLBACK");
      for (const { waiting } of this.#relays) await waiting;
      return;
    }
    if (random.chance(0.15)) {
      await this.#take(relay);
      return;
    }
    await relay.client.query("BEGIN");
    if (this.#relays.some(({ isInTurn }) => isInTurn)) {
      // Another one is in the middle of its turn: this one waits for that.
      relay.waiting = this.#turn(relay).then(
        () => this.#endLate(relay, "COMMIT"),
        () => this.#endLate(relay, "ROLLBACK"),
      );
      return;
    }
    await this.#turn(relay);
    if (random.chance(0.25)) relay.isInTurn = true;
    else await relay.client.query(random.chance(0.85) ? "COMMIT" : "ROLLBACK");
    if (!relay.isInTurn) await this.#saveApart();
  }

  async #endLate(relay: Relay, end: "COMMIT" | "ROLLBACK"): Promise<void> {
    await relay.client.query(end);
    relay.waiting = undefined;
  }

  async #take(relay: Relay): Promise<void> {
    const waiting = takePeers(relay.client, relay.owner).then(
      () => undefined,
      () => undefined,
    );
    if (!this.#relays.some(({ isInTurn }) => isInTurn)) {
      await waiting;
      return;
    }
    // It waits for the turn that is open.
    relay.waiting = waiting.then(() => {
      relay.waiting = undefined;
    });
  }

  async #turn(relay: Relay, maxMessages = this.#random.pick([1, 2, 5, 100])): Promise<boolean> {
    const { handed, has_more } = await peerTurn(relay.client, relay.owner, maxMessages);
    return handed > 0 || has_more;
  }

  /** Saves the position in another transaction, for the mutant that does so. */
  async #saveApart(): Promise<void> {
    if (this.#driver.savesApart !== true) return;
    if (this.#random.chance(0.8))
      await this.#control.query(
        "INSERT INTO hawser_data.outbox_turns SELECT * FROM public.apart ON CONFLICT DO NOTHING",
      );
    await this.#control.query("TRUNCATE public.apart");
  }

  async #rotate(): Promise<void> {
    for (let times = this.#random.between(1, 3); times > 0; times--) {
      for (const relay of this.#relays) {
        if (relay.isInTurn || relay.waiting !== undefined) continue;
        await relay.client.query("SELECT hawser.outbox_rotate('peer', $1, 0)", [relay.owner]);
      }
    }
  }

  // ---- listeners ----

  async #list(): Promise<void> {
    const random = this.#random;
    // A turn that has remembered a listener keeps its row until it ends.
    if (this.#relays.some(({ isInTurn }) => isInTurn) || this.#claimers.some(({ member }) => member !== undefined))
      return;
    const topic = random.pick(topics);
    const name = random.pick(listenersOf[topic]!);
    if (random.chance(0.6)) await this.#join(name, random.chance(0.7) ? random.pick(groups) : undefined);
    if (random.chance(0.4))
      await this.#control.query("DELETE FROM hawser_data.listeners WHERE listener_name = $1", [name]);
    else
      await this.#control.query(
        "INSERT INTO hawser_data.listeners (topic, addr, listener_name, durable) VALUES ($1, $2, $2, $3) ON CONFLICT DO NOTHING",
        [topic, name, random.chance(0.5)],
      );
    if (this.#running.has(name) !== random.chance(0.6)) return;
    const isRunning = this.#running.has(name);
    if (isRunning) this.#running.delete(name);
    else this.#running.add(name);
    const call = isRunning ? "release_name($1, true)" : "own_name($1, 'twin', 1)";
    await this.#leases.query(`SELECT FROM hawser.${call}`, [name]);
    const raised =
      "SELECT FROM hawser_data.owners AS o, hawser.raise_fence($1, o.epoch) WHERE o.what = 'peer:' || $1::text";
    await this.#leases.query(raised, [name]);
  }

  /** The listener is a member of the group from now on, or of none. */
  async #join(name: string, group: string | undefined): Promise<void> {
    await this.#control.query(
      `WITH owner AS (
         INSERT INTO hawser_data.owners (what, epoch) VALUES ('peer:' || $1::text, 1)
         ON CONFLICT (what) DO UPDATE SET epoch = hawser_data.owners.epoch + 1 RETURNING epoch
       ), fence AS (
         INSERT INTO hawser_data.fences AS f (what, epoch) SELECT 'peer:' || $1::text, o.epoch FROM owner AS o
         ON CONFLICT (what) DO UPDATE SET epoch = excluded.epoch
       )
       INSERT INTO hawser_data.peers (name, epoch, group_name) SELECT $1, o.epoch, $2 FROM owner AS o
       ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, group_name = excluded.group_name`,
      [name, group ?? null],
    );
  }

  /** A member claims, or ends its claim. */
  async #claim(): Promise<void> {
    const random = this.#random;
    const claimer = random.pick(this.#claimers);
    if (claimer.waiting !== undefined) return;
    const { client } = claimer;
    if (claimer.member !== undefined) {
      claimer.member = undefined;
      await client.query(random.chance(0.8) ? "COMMIT" : "ROLLBACK");
      for (const { waiting } of this.#claimers) await waiting;
      return;
    }
    claimer.member = random.pick(names);
    await client.query("BEGIN");
    const claim = this.#claimAs(client, claimer.member, random.between(1, 4));
    if (this.#claimers.some((other) => other !== claimer && other.member !== undefined)) {
      // It may wait for the other one.
      claimer.waiting = claim.then(async () => {
        await client.query("COMMIT");
        Object.assign(claimer, { member: undefined, waiting: undefined });
      });
      return;
    }
    await claim;
    if (random.chance(0.3)) return;
    claimer.member = undefined;
    await client.query(random.chance(0.9) ? "COMMIT" : "ROLLBACK");
  }

  /** @returns how many messages it has claimed */
  async #claimAs(client: pg.Client, name: string, most: number): Promise<number> {
    const { rows } = await client.query<{ claimed: string }>(
      `SELECT coalesce(sum(c.claimed), 0) AS claimed
         FROM hawser_data.peers AS p
        CROSS JOIN LATERAL hawser.claim_messages(
                p.name, p.epoch, $2, array_fill(0::bigint, ARRAY[4]), array_fill(0::bigint, ARRAY[4]), $3, 1000000, $4
              ) AS c
        WHERE p.name = $1`,
      [name, [...topics, ...topics], most, [false, false, true, true]],
    );
    return Number(rows[0]!.claimed);
  }

  /** Some channel's listener handles its next messages, and commits its cursor with that. */
  async #handle(count: number): Promise<boolean> {
    const { rows: channels } = await this.#control.query<{ key: number }>(
      `SELECT DISTINCT m.channel_id AS key FROM hawser_data.stored_messages AS s JOIN hawser_data.channels AS m USING (channel_id)
        WHERE NOT starts_with(coalesce(m.owner, m.listener_name), '__#') ORDER BY 1`,
    );
    if (channels.length === 0) return false;
    const { key } = this.#random.pick(channels);
    const { rows } = await this.#control.query<{
      epoch: string;
      number: string;
      text: string;
      before: string;
      has_gaps: boolean;
      listener: string | null;
      for_group: string | null;
    }>(
      `SELECT s.epoch, s.number, convert_from(s.payload, 'UTF8') AS text,
              coalesce(CASE WHEN c.epoch = s.epoch THEN c.number END, 0) AS before,
              m.source_topic = '__#claimed' OR starts_with(m.listener_name, '__#') AS has_gaps,
              CASE WHEN m.source_topic <> '__#claimed' AND NOT starts_with(m.listener_name, '__#') THEN m.listener_name END AS listener,
              nullif(k.for_group, '') AS for_group
         FROM hawser_data.stored_messages AS s
         JOIN hawser_data.channels AS m USING (channel_id)
         LEFT JOIN hawser_data.cursors AS c USING (channel_id)
         LEFT JOIN public.claimed AS k ON (k.channel_id, k.epoch, k.number) = (s.channel_id, s.epoch, s.number)
        WHERE s.channel_id = $1 AND (s.epoch, s.number) > (coalesce(c.epoch, 0), coalesce(c.number, 0))
        ORDER BY s.epoch, s.number LIMIT $2`,
      [key, count],
    );
    let before = rows[0] === undefined ? undefined : { epoch: rows[0].epoch, number: rows[0].before };
    for (const { epoch, number, text, has_gaps, listener, for_group } of rows) {
      const expected = before?.epoch === epoch ? BigInt(before.number) + 1n : 1n;
      if (has_gaps ? BigInt(number) < expected : BigInt(number) !== expected)
        throw new Error(`channel ${key} has number ${number} of epoch ${epoch}, not ${expected}`);
      before = { epoch, number };
      const recipient = for_group === null ? `listener ${listener}` : `group ${for_group}`;
      this.#handled.push({ message: this.#writers.sent(text), recipient });
    }
    const last = rows.at(-1);
    if (last === undefined) throw new Error(`channel ${key} has messages at or below its cursor`);
    await this.#control.query("SELECT FROM hawser.lock_cursors(ARRAY[$1::integer])", [key]);
    await this.#control.query(
      `WITH moved AS (UPDATE hawser_data.cursors SET epoch = $2, number = $3 WHERE channel_id = $1)
       DELETE FROM hawser_data.stored_messages WHERE channel_id = $1 AND (epoch, number) <= ($2, $3)`,
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
    for (const relay of this.#relays) await relay.waiting;
    for (const claimer of this.#claimers) {
      if (claimer.waiting === undefined && claimer.member !== undefined) await claimer.client.query("COMMIT");
    }
    for (const claimer of this.#claimers) {
      await claimer.waiting;
      claimer.member = undefined;
    }
    await this.#saveApart();
    await this.#writers.finish();
    const [relay] = this.#relays;
    await this.#take(relay!);
    for (const topic of topics)
      await this.#control.query(
        "INSERT INTO hawser_data.listeners (topic, addr, listener_name) SELECT $1, n, n FROM unnest($2::text[]) AS n ON CONFLICT DO NOTHING",
        [topic, listenersOf[topic]],
      );
    // Each group has a member in each topic, which claims its copies.
    for (const names of Object.values(listenersOf))
      for (const [nth, group] of groups.entries()) await this.#join(names[nth + 1]!, group);
    for (let turns = 0; await this.#turn(relay!, 3); turns++) {
      await this.#control.query(
        "INSERT INTO hawser_data.outbox_turns SELECT * FROM public.apart ON CONFLICT DO NOTHING",
      );
      if (turns > 1_000) throw new Error("the relay finds messages again and again");
    }
    for (let rounds = 0; ; rounds++) {
      while (await this.#handle(100));
      let claimed = 0;
      for (const name of names) claimed += await this.#claimAs(this.#control, name, 3);
      // What one member cannot claim because another one had the key, or none may claim any more, comes in the next round.
      const isOver = claimed === 0 && !(await this.#turn(relay!, 3)) && !(await this.#handle(100));
      if (isOver) return;
      if (rounds > 1_000) throw new Error("members claim again and again");
    }
  }

  /** Each copy counts as a message of its own, with an order of its own. */
  async #check(): Promise<void> {
    const { rows: known } = await this.#control.query<{ text: string; recipients: readonly string[] }>(
      "SELECT text, recipients FROM public.known",
    );
    const recipientsOf = new Map(known.map(({ text, recipients }) => [text, recipients]));
    const copiesOf = ({ text, isToAll }: Sent): readonly string[] => (isToAll ? (recipientsOf.get(text) ?? []) : []);
    const copy = ({ text, lane }: Sent, recipient: string): Sent => ({
      text: `${text} for ${recipient}`,
      lane: lane && `${lane} for ${recipient}`,
    });
    checkHistory(
      this.#writers.committed.flatMap((message) => {
        const recipients = copiesOf(message);
        return recipients.length === 0 ? message : recipients.map((recipient) => copy(message, recipient));
      }),
      this.#handled.map(({ message, recipient }) =>
        copiesOf(message).length === 0 ? message : copy(message, recipient),
      ),
    );
    const { rows: others } = await this.#control.query(
      "SELECT * FROM public.claimed WHERE for_group <> '' AND for_group IS DISTINCT FROM member_group",
    );
    if (others.length > 0) throw new Error(`copies were claimed for another group: ${JSON.stringify(others[0])}`);
  }
}
