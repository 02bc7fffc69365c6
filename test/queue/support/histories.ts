/**
 * Random histories of the queue, step by step from a seed, on the SQL functions themselves: writers of several roles; workers that
 * take in transactions which stay open, handle, fail, put off, give back, end in good order, are killed, and stand still for longer
 * than their lease and go on, or lose their sessions and go on under another id; listeners that come and go; messages for all; messages that are cancelled.
 *
 * Checked: each committed message is handled once or is a dead letter, none that was rolled back, and each role, topic and key in the
 * order of the commits; a role's key has one worker that goes on; no row is taken from one that does; no worker is ended before its lease;
 * a message for all has one copy for each of those that are there when it is made; nothing is handled that was cancelled, and what a
 * worker had then is handled by no later one; of what a worker had that ended uncleanly, a suspect counts as tried if its handler had
 * begun, and no other one does.
 */
import pg from "pg";
import { Random } from "../../simulator/random.js";
import { type Positions, type Taken, TestWorker } from "./test-worker.js";
import { checkHistory, type Sent, Writers } from "./writers.js";

const topics = ["t", "u"];
const groups = ["red", "blue"];
const names = ["m1", "m2", "m3", "m4"];
const steps = 150;
const maxAttempts = 3;

/** What writers call, and what the tables say of each step, not the functions that are tested. */
const witnessSql = `
  CREATE TABLE IF NOT EXISTS public.effects (text text, recipient text);
  CREATE TABLE IF NOT EXISTS public.known (text text PRIMARY KEY, recipients text[] NOT NULL);
  CREATE TABLE IF NOT EXISTS public.begun (worker bigint, rank bigint, PRIMARY KEY (worker, rank));
  GRANT ALL ON public.effects, public.known, public.begun TO PUBLIC;
  CREATE OR REPLACE FUNCTION public.queue(p_topic text, p_payloads text[], p_key text, p_to_all boolean) RETURNS bigint[]
  LANGUAGE plpgsql SECURITY DEFINER AS $$
  BEGIN
    IF p_key IS NOT NULL THEN
      PERFORM hawser.lock_key(p_topic, p_key);
    END IF;
    RETURN hawser.queue_messages(p_topic, '', ARRAY(SELECT convert_to(p, 'UTF8') FROM unnest(p_payloads) AS p), NULL, p_key,
      coalesce(nullif(current_setting('role'), 'none'), session_user), NULL, p_to_all, 0::smallint);
  END
  $$;
  CREATE OR REPLACE FUNCTION public.goes_on(p_worker bigint) RETURNS boolean LANGUAGE sql AS
    'SELECT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = p_worker AND w.gone_at IS NULL)';
  CREATE OR REPLACE FUNCTION public.changed() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF NEW.worker <> OLD.worker AND public.goes_on(OLD.worker) THEN
      RAISE EXCEPTION 'row % was taken from a worker that goes on', OLD.rank;
    END IF;
    IF NEW.worker <> OLD.worker AND OLD.is_suspect
       AND (NEW.attempts > OLD.attempts) <> (
         EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = OLD.worker)
         AND EXISTS (SELECT FROM public.begun AS b WHERE b.worker = OLD.worker AND b.rank = OLD.rank)
       )
    THEN
      RAISE EXCEPTION 'the row % has % attempts behind %, and its handler was begun or not', OLD.rank, NEW.attempts, OLD.attempts;
    END IF;
    RETURN NULL;
  END
  $$;
  CREATE OR REPLACE TRIGGER changed AFTER UPDATE ON hawser_data.queue FOR EACH ROW EXECUTE FUNCTION public.changed();
  CREATE OR REPLACE FUNCTION public.ended() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF OLD.gone_at IS NULL AND NEW.gone_at IS NOT NULL AND OLD.beat_at > clock_timestamp() - make_interval(secs => OLD.lease_ms / 1000.0) THEN
      RAISE EXCEPTION 'worker % was ended although it goes on', OLD.id;
    END IF;
    RETURN NULL;
  END
  $$;
  CREATE OR REPLACE TRIGGER ended AFTER UPDATE ON hawser_data.workers FOR EACH ROW EXECUTE FUNCTION public.ended();
  CREATE OR REPLACE FUNCTION public.spread() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO public.known (text, recipients)
    SELECT convert_from(OLD.payload, 'UTF8'), array_agg(DISTINCT r.recipient)
      FROM (
        SELECT CASE WHEN w.group_name IS NULL THEN '@' || w.name ELSE '#' || w.group_name END AS recipient
          FROM hawser_data.workers AS w WHERE w.gone_at IS NULL AND OLD.topic = ANY (w.topics)
        UNION ALL
        SELECT coalesce('#' || p.group_name, '@' || a.listener_name)
          FROM hawser_peer_data.listeners AS a LEFT JOIN hawser_peer_data.peers AS p ON p.name = a.listener_name
         WHERE a.topic = OLD.topic AND (p.group_name IS NOT NULL OR a.durable)
      ) AS r;
    RETURN NULL;
  END
  $$;
  CREATE OR REPLACE TRIGGER spread AFTER DELETE ON hawser_data.queue FOR EACH ROW
    WHEN (OLD.to_all AND OLD.recipient = '') EXECUTE FUNCTION public.spread()`;

/** Keys that two workers have which go on. */
const sharedSql = `
  SELECT q.topic, q.recipient, q.role, q.key FROM hawser_data.queue AS q
   WHERE q.key IS NOT NULL AND public.goes_on(q.worker)
   GROUP BY 1, 2, 3, 4 HAVING count(DISTINCT q.worker) > 1`;

/** Departures of the workers. */
export interface HistoryDriver {
  /** They never look at what they have looked at before. */
  readonly neverLooksBehind?: boolean;
}

/** A process with a worker: a session in which it takes, and one of its handler. */
interface Process {
  readonly name: string;
  readonly group: string | undefined;
  client: pg.Client;
  handlers: pg.Client;
  worker: TestWorker | undefined;
  /** What the worker has, as it knows. */
  held: Taken[];
  /** Its take is not committed yet, or waits for that of another one. */
  taken: Taken[] | undefined;
  waiting: Promise<void> | undefined;
  /** Its handler's transaction is not committed yet. */
  handling: Taken | undefined;
  /** It says nothing. */
  isSilent: boolean;
}

interface Handled {
  readonly message: Sent;
  readonly recipient: string;
}

export class QueueHistories implements AsyncDisposable {
  readonly #url: string;
  readonly #driver: HistoryDriver;
  readonly #writers: Writers;
  #random = new Random(0);
  #control!: pg.Client;
  #processes: Process[] = [];
  #handled: Handled[] = [];
  #dead: Handled[] = [];
  /** Texts and recipients of cancelled messages. True: a worker had it, and may have handled it. */
  #cancelled = new Map<string, boolean>();
  #isFinishing = false;
  #lastPositions: Positions = {};

  constructor(url: string, driver: HistoryDriver = {}) {
    this.#url = url;
    this.#driver = driver;
    const calls = topics.flatMap((topic) =>
      [false, false, true].map((isToAll) => ({
        sql: "SELECT public.queue($1, $2::text[], $3, $4::boolean)",
        values: (payloads: readonly string[], key: string | null) => [topic, payloads, key, isToAll],
        destination: topic,
        isToAll,
      })),
    );
    this.#writers = new Writers({ url, memberOf: "hawser_peer", calls });
  }

  async open(): Promise<void> {
    this.#control = await this.#connected();
    await this.#control.query(witnessSql);
    await this.#writers.open();
    for (const [nth, name] of names.entries()) {
      this.#processes.push({
        ...{ name, group: nth < 2 ? undefined : groups[nth % 2], held: [], worker: undefined, taken: undefined },
        ...{ client: await this.#connected(), handlers: await this.#connected(), waiting: undefined },
        ...{ handling: undefined, isSilent: false },
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writers[Symbol.asyncDispose]();
    await Promise.all(this.#processes.flatMap(({ client, handlers }) => [client.end(), handlers.end()]));
    await this.#control.end();
  }

  /** @throws Error that says what went wrong */
  async run(seed: number): Promise<void> {
    this.#random = new Random(seed);
    await this.#reset();
    for (let step = 0; step < steps; step++) {
      await this.#step();
      const { rows } = await this.#control.query(sharedSql);
      if (rows.length > 0) throw new Error(`two workers have the key ${JSON.stringify(rows[0])}`);
    }
    await this.#finish();
    await this.#check();
  }

  async #connected(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#url, statement_timeout: 60_000 });
    client.on("error", () => undefined);
    await client.connect();
    return client;
  }

  async #reset(): Promise<void> {
    this.#handled = [];
    this.#dead = [];
    this.#cancelled = new Map();
    this.#isFinishing = false;
    this.#lastPositions = {};
    for (const process of this.#processes) {
      await process.client.query("ROLLBACK").catch(() => undefined);
      await process.waiting?.catch(() => undefined);
      await process.client.query("ROLLBACK");
      await process.handlers.query("ROLLBACK");
      this.#forget(process);
      Object.assign(process, { handling: undefined, isSilent: false, waiting: undefined });
    }
    await this.#writers.reset(this.#random);
    await this.#control.query(
      `TRUNCATE hawser_data.queue, hawser_data.cancellations, hawser_data.workers, hawser_peer_data.listeners, hawser_peer_data.peers, hawser_data.dead_letters,
                public.effects, public.known, public.begun`,
    );
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const kind = random.next();
    if (kind < 0.25) await this.#writers.step();
    else if (kind < 0.28) await this.#list();
    else if (kind < 0.34) await this.#pass();
    else if (kind < 0.38) await this.#cancel();
    else await this.#work(random.pick(this.#processes));
    await this.#settled();
  }

  async #work(process: Process): Promise<void> {
    const random = this.#random;
    if (process.waiting !== undefined) return;
    if (process.taken !== undefined) {
      // A worker that goes on would wait for the one that is just taking what it had, or what is behind that.
      await this.#endTake(process, random.chance(0.85) || (await this.#isTaken(process)));
      return;
    }
    if (await this.#isTaken(process)) return;
    if (process.handling !== undefined) {
      await this.#endHandling(process, random.next());
      return;
    }
    const { worker } = process;
    if (worker === undefined) {
      await this.#open(process);
      return;
    }
    const kind = random.next();
    if (process.isSilent) {
      // It stands still; what it does when it goes on, it does without having asked.
      if (kind < 0.2) process.isSilent = false;
      return;
    }
    if (kind < 0.4) await this.#take(process, worker);
    else if (kind < 0.68) await this.#handle(process);
    else if (kind < 0.76) await this.#fail(process, worker);
    else if (kind < 0.8) await this.#giveBack(process, worker);
    else if (kind < 0.86) await this.#extend(process, worker);
    else if (kind < 0.94) await this.#silence(process, worker);
    else if (kind < 0.97) {
      // Killed: others find out.
      await this.#silence(process, worker);
      this.#forget(process);
      process.isSilent = false;
    } else {
      await worker.close();
      this.#forget(process);
    }
  }

  // ---- workers ----

  #forget(process: Process): void {
    Object.assign(process, { worker: undefined, held: [], taken: undefined });
  }

  async #open(process: Process, replaces?: bigint): Promise<void> {
    const { name, group, client } = process;
    const options = { name, topics, concurrency: this.#random.between(1, 3), leaseMs: 600_000 };
    process.worker = await TestWorker.open(client, {
      ...options,
      ...(group === undefined ? {} : { group }),
      ...(replaces === undefined ? {} : { replaces }),
    });
    process.held = [];
    if (this.#driver.neverLooksBehind === true) process.worker.after = this.#lastPositions;
  }

  /** What it has may be another's: it goes on with what is its own, or begins a new worker, which replaces this one. */
  async #lose(process: Process): Promise<void> {
    const { worker, held } = process;
    const { rows } = await this.#control.query("SELECT FROM hawser_data.workers WHERE id = $1 AND gone_at IS NULL", [
      String(worker?.id),
    ]);
    this.#forget(process);
    if (worker !== undefined && rows.length > 0 && this.#random.chance(0.5)) {
      const ranks = await worker.resume(held);
      Object.assign(process, { worker, held: held.filter(({ rank }) => ranks.includes(rank)) });
      const { rows: own } = await this.#control.query<{ rank: string }>(
        "SELECT rank FROM hawser_data.queue WHERE worker = $1",
        [String(worker.id)],
      );
      if (own.length !== ranks.length) throw new Error("a worker has gone on with what it does not know");
      return;
    }
    await this.#open(process, rows.length > 0 ? worker?.id : undefined);
  }

  /** True if a transaction that is open has a message of the worker. */
  async #isTaken({ held, handling }: Process): Promise<boolean> {
    const ranks = [...held, ...(handling === undefined ? [] : [handling])].map(({ rank }) => String(rank));
    const { rows } = await this.#control.query<{ is_taken: boolean }>(
      `SELECT (SELECT count(*) FROM hawser_data.queue AS q WHERE q.rank = ANY ($1::bigint[]))
            > (SELECT count(*) FROM (SELECT FROM hawser_data.queue AS q WHERE q.rank = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED) AS l) AS is_taken`,
      [ranks],
    );
    return rows[0]!.is_taken;
  }

  /** What the error says of the worker. @throws any other error */
  async #lostBy(process: Process, error: unknown): Promise<void> {
    const { code } = error as pg.DatabaseError;
    if (code !== "NA008" && code !== "NA009") throw error;
    await this.#lose(process);
  }

  async #take(process: Process, worker: TestWorker): Promise<void> {
    const random = this.#random;
    const looksBehind = random.chance(0.6) && this.#driver.neverLooksBehind !== true;
    const isOpen = random.chance(0.5);
    await process.client.query("BEGIN");
    const taking = worker.take({ most: random.pick([1, 1, 2, 4]), looksBehind }).then(
      async (taken) => {
        process.taken = taken;
        if (!isOpen) await this.#endTake(process, true);
        // Postgres would end the session of a transaction that is idle for 8 s, as on a slow machine.
        else await process.client.query("SET LOCAL idle_in_transaction_session_timeout = 0");
      },
      async (error) => {
        await process.client.query("ROLLBACK");
        await this.#lostBy(process, error);
      },
    );
    if (
      !this.#processes.some((other) => other !== process && (other.taken !== undefined || other.waiting !== undefined))
    ) {
      await taking;
      return;
    }
    // It may wait for the other one.
    const waiting = taking.finally(() => {
      process.waiting = undefined;
    });
    process.waiting = waiting;
    waiting.catch(() => undefined);
  }

  async #endTake(process: Process, isCommit: boolean): Promise<void> {
    const taken = process.taken!;
    process.taken = undefined;
    await process.client.query(isCommit ? "COMMIT" : "ROLLBACK");
    if (isCommit) process.held.push(...taken);
    else await this.#lose(process);
    this.#note(process.worker!.after);
  }

  /** For workers that never look behind. */
  #note(after: Positions): void {
    for (const [topic, places] of Object.entries(after)) {
      for (const [recipient, roles] of Object.entries(places)) {
        const known = ((this.#lastPositions[topic] ??= {})[recipient] ??= {});
        for (const [role, id] of Object.entries(roles)) known[role] = Math.max(known[role] ?? 0, id);
      }
    }
  }

  /** Waits for the answers of all takes that no other one keeps waiting. */
  async #settled(): Promise<void> {
    for (const process of this.#processes) {
      while (process.waiting !== undefined) {
        const pid = (process.client as unknown as { processID: number }).processID;
        const { rows } = await this.#control.query("SELECT cardinality(pg_blocking_pids($1)) > 0 AS blocked", [pid]);
        if (rows[0].blocked) break;
        await Promise.race([process.waiting, this.#control.query("SELECT 1")]);
      }
    }
  }

  async #extend(process: Process, worker: TestWorker): Promise<void> {
    try {
      await worker.extend();
      const ended = await worker.endCancelled(process.handling);
      process.held = process.held.filter(({ rank }) => !ended.includes(rank));
    } catch (error) {
      await this.#lostBy(process, error);
    }
  }

  async #silence(process: Process, worker: TestWorker): Promise<void> {
    process.isSilent = true;
    await this.#control.query(
      "UPDATE hawser_data.workers SET beat_at = beat_at - interval '1 hour' WHERE id = $1 AND gone_at IS NULL",
      [String(worker.id)],
    );
  }

  /** The first message of a key that a worker has may run. */
  #runnable({ held }: Process): Taken[] {
    const lane = ({ topic, recipient, role, key }: Taken) => `${topic} ${recipient} ${role} ${key}`;
    const inOrder = held.toSorted((one, other) => Number(one.rank - other.rank));
    const seen = new Set<string>();
    return inOrder.filter((message) => {
      if (message.key === null) return true;
      const isFirst = !seen.has(lane(message));
      seen.add(lane(message));
      return isFirst;
    });
  }

  async #handle(process: Process): Promise<void> {
    const { handlers } = process;
    const runnable = this.#runnable(process);
    if (runnable.length === 0) return;
    const suspects = runnable.filter(({ isSuspect }) => isSuspect === true);
    const message = this.#random.pick(suspects.length > 0 ? suspects : runnable);
    if (message.isSuspect === true && !(await this.#begin(process, message))) return;
    await handlers.query("BEGIN");
    await handlers.query("INSERT INTO public.effects VALUES ($1, $2)", [textOf(message), message.recipient]);
    process.handling = message;
    if (this.#random.chance(0.7)) await this.#endHandling(process, this.#random.next());
  }

  /** Tells that the handler begins. @returns false if the worker does not have the message any more */
  async #begin(process: Process, message: Taken): Promise<boolean> {
    const worker = process.worker!;
    if ((await worker.begin(message)).length === 0) {
      await this.#lose(process);
      return false;
    }
    const place = [String(worker.id), String(message.rank)];
    await this.#control.query("INSERT INTO public.begun VALUES ($1, $2) ON CONFLICT DO NOTHING", place);
    return true;
  }

  /** The worker has no handler of these messages any more. */
  async #ended({ id }: TestWorker, ranks: readonly bigint[]): Promise<void> {
    const sql = "DELETE FROM public.begun WHERE worker = $1 AND rank = ANY ($2::bigint[])";
    await this.#control.query(sql, [String(id), ranks.map(String)]);
  }

  async #endHandling(process: Process, lot: number): Promise<void> {
    const { handlers, worker } = process;
    const message = process.handling!;
    process.handling = undefined;
    if (lot > (message.isSuspect === true ? 0.5 : 0.95) && worker !== undefined) {
      // The message ends its process.
      await handlers.end();
      process.handlers = await this.#connected();
      await this.#silence(process, worker);
      this.#forget(process);
      process.isSilent = false;
      return;
    }
    if (lot > 0.9) {
      // The handler's session is lost; the message is tried again.
      await handlers.end();
      process.handlers = await this.#connected();
      return;
    }
    const { topic, recipient, role, rank } = message;
    try {
      await handlers.query("SELECT hawser.done($1, $2, $3, $4, false)", [topic, recipient, role, String(rank)]);
    } catch (error) {
      await handlers.query("ROLLBACK");
      if (process.worker === undefined) throw error;
      await this.#lostBy(process, error);
      return;
    }
    await handlers.query("COMMIT");
    const sent = this.#writers.sent(textOf(message));
    if (this.#handled.some((one) => one.message === sent && one.recipient === recipient))
      throw new Error(`${sent.text} for "${recipient}" had its effects twice`);
    const wasTaken = this.#cancelled.get(`${sent.text} ${recipient}`);
    if (wasTaken !== undefined && (!wasTaken || this.#isFinishing))
      throw new Error(`${sent.text} for "${recipient}" was committed, and had been cancelled`);
    this.#handled.push({ message: sent, recipient });
    process.held = process.held.filter((one) => one.rank !== rank);
  }

  async #fail(process: Process, worker: TestWorker): Promise<void> {
    const runnable = this.#runnable(process);
    if (runnable.length === 0) return;
    const message = this.#random.pick(runnable);
    const failure = { attempt: message.attempts + 1, at: new Date(0), code: "handler_failed", message: "no" };
    try {
      if (message.attempts + 1 >= maxAttempts) {
        await worker.giveUp(message, failure);
        this.#dead.push({ message: this.#writers.sent(textOf(message)), recipient: message.recipient });
        process.held = process.held.filter(({ rank }) => rank !== message.rank);
        return;
      }
      const released = await worker.retry(message, this.#random.pick([0, 60_000]), failure);
      await this.#ended(worker, released);
      process.held = process.held.filter(({ rank }) => !released.includes(rank));
    } catch (error) {
      await this.#lostBy(process, error);
    }
  }

  async #giveBack(process: Process, worker: TestWorker): Promise<void> {
    if (process.held.length === 0) return;
    // Rather one that others are behind.
    const heads = this.#runnable(process).filter((one) =>
      process.held.some(({ role, key, rank }) => role === one.role && key === one.key && rank > one.rank),
    );
    const released = await worker.giveBack(this.#random.pick(heads.length > 0 ? heads : process.held));
    await this.#ended(worker, released);
    process.held = process.held.filter(({ rank }) => !released.includes(rank));
  }

  /** What waits to be tried again is due, unless a transaction has it. */
  async #pass(): Promise<void> {
    await this.#control.query(
      `UPDATE hawser_data.queue AS q SET due_at = q.due_at - interval '1 hour'
         FROM (SELECT o.ctid AS tid FROM hawser_data.queue AS o WHERE o.due_at > clock_timestamp() FOR UPDATE SKIP LOCKED) AS l
        WHERE q.ctid = l.tid`,
    );
  }

  /** Cancels one of the messages, in a transaction that may be rolled back. */
  async #cancel(): Promise<void> {
    const { rows } = await this.#control.query<{ id: string; text: string; recipient: string }>(
      "SELECT id, convert_from(payload, 'UTF8') AS text, recipient FROM hawser_data.queue ORDER BY id",
    );
    if (rows.length === 0) return;
    const { id, text, recipient } = this.#random.pick(rows);
    await this.#control.query("BEGIN");
    const answer = await this.#control.query<{ state: string }>("SELECT hawser.cancel($1) AS state", [id]);
    const isCommit = this.#random.chance(0.8);
    await this.#control.query(isCommit ? "COMMIT" : "ROLLBACK");
    const { state } = answer.rows[0]!;
    if (isCommit && state !== "not_waiting") this.#cancelled.set(`${text} ${recipient}`, state === "cancelling");
  }

  /** A listener or a group comes to the directory, or goes. */
  async #list(): Promise<void> {
    const random = this.#random;
    const name = random.pick(["d1", "d2"]);
    if (random.chance(0.4)) {
      await this.#control.query("DELETE FROM hawser_peer_data.listeners WHERE listener_name = $1", [name]);
      return;
    }
    const group = name === "d2" ? random.pick(groups) : null;
    await this.#control.query(
      "INSERT INTO hawser_peer_data.peers (name, epoch, group_name) VALUES ($1, 1, $2) ON CONFLICT (name) DO UPDATE SET group_name = $2",
      [name, group],
    );
    await this.#control.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name, durable) VALUES ($1, $2, $2, $3) ON CONFLICT DO NOTHING",
      [random.pick(topics), name, random.chance(0.5)],
    );
  }

  // ---- the end ----

  async #finish(): Promise<void> {
    // Of those that wait for each other, the first one has what it waits for, and ends before the next one does.
    while (this.#processes.some(({ taken, waiting }) => taken !== undefined || waiting !== undefined)) {
      await this.#settled();
      for (const process of this.#processes) if (process.taken !== undefined) await this.#endTake(process, true);
    }
    for (const process of this.#processes) if (process.handling !== undefined) await this.#endHandling(process, 0);
    await this.#writers.finish();
    this.#isFinishing = true;
    await this.#control.query("DELETE FROM hawser_data.workers");
    await this.#control.query("DELETE FROM hawser_peer_data.listeners");
    // One for each name and each group, so that nothing waits for one that does not come.
    const [first] = this.#processes;
    const members = [...names, "d1", "d2"].map((name) => ({ name, group: undefined as string | undefined }));
    for (const group of groups) members.push({ name: `last-${group}`, group });
    for (let rounds = 0; ; rounds++) {
      if (rounds > 200) throw new Error("messages are left in the queue");
      let found = 0;
      for (const { name, group } of members) {
        const process: Process = { ...first!, name, group, held: [] };
        await this.#open(process);
        for (let takes = 0; takes < 30; takes++) {
          await this.#control.query(
            "UPDATE hawser_data.queue SET due_at = clock_timestamp() - interval '1 s' WHERE due_at IS NOT NULL",
          );
          process.held.push(...(await process.worker!.take({ most: 1_000 })));
          if (process.held.length === 0) break;
          found += process.held.length;
          while (process.held.length > 0) {
            const [message] = this.#runnable(process);
            await process.handlers.query("BEGIN");
            process.handling = message;
            await this.#endHandling(process, 0);
          }
        }
        await process.worker?.close();
      }
      if (found > 0) continue;
      const { rows } = await this.#control.query(
        "SELECT (SELECT count(*) FROM hawser_data.queue) + (SELECT count(*) FROM hawser_data.cancellations) AS left",
      );
      if (rows[0].left === "0" || this.#driver.neverLooksBehind === true) return;
    }
  }

  /** Each copy counts as a message of its own, with an order of its own. */
  async #check(): Promise<void> {
    const { rows } = await this.#control.query<{ text: string; recipients: readonly string[] }>(
      "SELECT text, recipients FROM public.known",
    );
    const recipientsOf = new Map(rows.map(({ text, recipients }) => [text, recipients]));
    const copy = ({ text, lane }: Sent, recipient: string): Sent => ({
      text: `${text} for "${recipient}"`,
      lane: lane && `${lane} for "${recipient}"`,
    });
    const dead = new Set(this.#dead.map(({ message, recipient }) => copy(message, recipient).text));
    const letters = await this.#control.query("SELECT count(*)::int AS count FROM hawser_data.dead_letters");
    if (letters.rows[0].count !== dead.size)
      throw new Error(`there are ${letters.rows[0].count} dead letters, not ${dead.size}`);
    const handled = new Set(this.#handled.map(({ message, recipient }) => `${message.text} ${recipient}`));
    // One for all may have been cancelled before its copies were made.
    const isCancelled = (text: string, to: string): boolean =>
      [to, ""].some((recipient) => this.#cancelled.has(`${text} ${recipient}`)) && !handled.has(`${text} ${to}`);
    checkHistory(
      this.#writers.committed
        .flatMap((message) => {
          const recipients = message.isToAll ? (recipientsOf.get(message.text) ?? ["nobody"]) : [""];
          return recipients.flatMap((to) => (isCancelled(message.text, to) ? [] : copy(message, to)));
        })
        .filter(({ text }) => !dead.has(text)),
      this.#handled.map(({ message, recipient }) => copy(message, recipient)),
    );
  }
}

const textOf = ({ payload }: Taken): string => payload.toString();
