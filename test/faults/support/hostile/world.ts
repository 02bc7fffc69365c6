/**
 * A database in which a victim has something of everything, a canary's messages flow through processes of their own, and
 * each role has a login that attacks.
 */
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { Peer } from "../../../../src/jobs-and-peers/peer/index.js";
import { type TestDatabase, testDatabase } from "../../../support/database.js";
import { eventually } from "../../../support/eventually.js";
import { defineServer } from "../../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../../support/nats-server.js";
import { type Program, startProgram } from "../../../support/program.js";
import type { LogLine } from "../serve-process.js";
import { type AttackerRole, attackerRoles } from "./catalog.js";
import { takeEveryLock, waitForEveryLock } from "./locks.js";

/** Prefix of the victim's payloads, which nobody else may read. */
export const victimMarker = "payload-of-the-victim";

/** Suffixes of advisory lock keys: names of peers, subjects of handlers. */
const lockNames = [
  ...["canary-listener", "canary-topic", "victim-peer", "victim-sender", "attack-peer", "attack-listener"],
  ...["subscription:victim.in", "responder:victim.answer", "responder:victim.", "stream:victim-stream", "canary."],
];

/** A login, with a client in its session. */
export interface Login {
  readonly name: string;
  readonly url: string;
}

/** Rows of the victim, by which attackers name them. */
export interface VictimIds {
  /** Ids of outbox rows, later messages, dead letters, handlers, and channels. */
  readonly numbers: readonly string[];
  /** Subjects, topics, names, functions, streams. */
  readonly texts: readonly string[];
}

export class HostileWorld implements AsyncDisposable {
  readonly #undo: (() => unknown)[] = [];
  readonly #suffix = randomBytes(4).toString("hex");
  database!: TestDatabase;
  natsServer!: TestNatsServer;
  nats!: NatsConnection;
  /** Connected as superuser. */
  operator!: pg.Client;
  serve!: Program;
  readonly serveLog: LogLine[] = [];
  listener!: Program;
  /** Output of the canary's listener. */
  readonly heard = new Set<string>();
  /** Arrival time of each message of the canary, by its text (`performance.now()`). */
  readonly arrivedAt = new Map<string, number>();
  /** Messages that were published to the subjects of victim and attackers. */
  readonly published: { readonly subject: string; readonly text: string }[] = [];
  /** Keys of the advisory locks that a login without any privilege holds all the time. */
  lockTexts!: readonly string[];
  victim!: Login;
  canary!: Login;
  readonly attackers = new Map<AttackerRole, Login>();

  /** Makes one: the servers, the logins, what the victim has, and the processes. */
  static async open(): Promise<HostileWorld> {
    const world = new HostileWorld();
    try {
      await world.#open();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The names of the logins that attack, by their role. */
  get logins(): ReadonlyMap<AttackerRole, string> {
    return new Map([...this.attackers].map(([role, { name }]) => [role, name]));
  }

  /** A session of a login. It is ended with the world. */
  async session({ url }: Login, name = "hostile"): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, application_name: name });
    client.on("error", () => undefined);
    await client.connect();
    this.#undo.push(() => client.end());
    return client;
  }

  /** The first column of all rows, as superuser. */
  async column(sql: string): Promise<string[]> {
    const { rows } = await this.operator.query({ text: sql, rowMode: "array" });
    return rows.map(([value]) => `${value}`);
  }

  /** The processes, by their ids and start times: none of them may end. */
  async processes(): Promise<string[]> {
    const ended = [this.serve, this.listener].filter(
      ({ child }) => child.exitCode !== null || child.signalCode !== null,
    );
    for (const { ended: end } of ended) throw new Error(`a process has ended: ${JSON.stringify(await end)}`);
    const backends = await this.column(
      `SELECT 'postmaster ' || pg_postmaster_start_time() UNION ALL
       SELECT application_name || ' ' || pid || ' ' || backend_start FROM pg_stat_activity
        WHERE datname = current_database() AND application_name IN ('canary', 'operator') ORDER BY 1`,
    );
    return [`serve ${this.serve.pid}`, `listener ${this.listener.pid}`, ...backends];
  }

  /** Identifiers of the victim's objects, through which others may try to reach them. */
  async victimIds(): Promise<VictimIds> {
    const numbers = await this.column(
      `SELECT id::text FROM hawser_data.outbox WHERE role = '${this.victim.name}'
       UNION SELECT id::text FROM hawser_data.queue WHERE role = '${this.victim.name}'
       UNION SELECT id::text FROM hawser_data.dead_letters
       UNION SELECT id::text FROM hawser_bridge_data.nats_handlers
       UNION SELECT channel_id::text FROM hawser_peer_data.channels WHERE channel_name LIKE '%victim%'
       UNION SELECT 'victim.note'::regproc::oid::text ORDER BY 1`,
    );
    const texts = await this.column(
      `SELECT * FROM unnest(ARRAY['victim.in', 'victim.answer', 'victim.out', 'victim-topic', 'victim-peer', 'victim-sender',
              'victim.note', 'victim-stream', 'VICTIM', 'victim', 'victim.txt', '${this.victim.name}'])
       UNION ALL (SELECT wrapper FROM hawser_bridge_data.nats_handlers ORDER BY 1)
       UNION ALL SELECT relay FROM hawser.outbox_status WHERE relay IS NOT NULL
       UNION ALL SELECT token FROM hawser_peer_data.peers WHERE name LIKE 'victim%' AND token IS NOT NULL`,
    );
    return { numbers, texts };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) await undo();
  }

  async #open(): Promise<void> {
    this.natsServer = await startNatsServer({ jetStream: true });
    this.#undo.push(() => this.natsServer[Symbol.asyncDispose]());
    this.nats = await connect({ servers: this.natsServer.url });
    this.#undo.push(() => this.nats.close());
    this.database = await testDatabase();
    this.#undo.push(() => this.database.drop());
    const operator = { name: "postgres", url: this.database.url };
    this.operator = await this.session(operator, "operator");
    await defineServer(this.operator, this.natsServer.url, { token: `option-${this.#suffix}-of-the-server` });
    this.victim = await this.#login("victim", "IN ROLE hawser_nats, hawser_peer");
    this.canary = await this.#login("canary", "IN ROLE hawser_nats, hawser_peer");
    for (const role of attackerRoles) {
      this.attackers.set(role, await this.#login(`attacker_${role}`, role === "none" ? "" : `IN ROLE ${role}`));
    }
    // Before any process starts, so that none of them can have been first.
    this.lockTexts = await takeEveryLock(() => this.session(this.attackers.get("none")!, "lock taker"), lockNames);
    this.serve = this.#program(["serve", "--json", "--log-level", "info", "--listen", "127.0.0.1:0"]);
    createInterface({ input: this.serve.child.stderr! }).on("line", (line) => {
      if (line.startsWith("{")) this.serveLog.push(JSON.parse(line));
    });
    this.listener = this.#program([
      "listen",
      "canary-topic",
      "--name",
      "canary-listener",
      "--json",
      "--text",
      "--quiet",
    ]);
    createInterface({ input: this.listener.child.stdout! }).on("line", (line) => {
      this.#arrived(JSON.parse(line).payload);
    });
    await this.serve.firstLine;
    // Not ">": where nobody is subscribed, calls of JetStream fail at once.
    for (const subject of ["canary.>", "victim.>", "attack.>"]) {
      this.nats.subscribe(subject, {
        callback: (_error, message) => this.#sawOnNats(message.subject, Buffer.from(message.data).toString("latin1")),
      });
    }
    await this.#makeVictim();
    await eventually("the canary's listener is in the directory", async () => {
      const found = await this.column("SELECT 1 FROM hawser_peer_data.listeners WHERE topic = 'canary-topic'");
      return found.length > 0;
    });
    await waitForEveryLock(() => this.session(this.attackers.get("none")!, "lock waiter"));
  }

  async #login(kind: string, options: string): Promise<Login> {
    const name = `${kind}_${this.#suffix}`;
    await this.operator.query(`CREATE ROLE ${name} LOGIN PASSWORD '${name}' ${options}`);
    this.#undo.push(async () => {
      const client = new pg.Client(this.database.url);
      await client.connect();
      await client.query(`DROP OWNED BY ${name} CASCADE`);
      await client.query(`DROP ROLE ${name}`);
      await client.end();
    });
    const url = new URL(this.database.url);
    url.username = name;
    url.password = name;
    return { name, url: url.href };
  }

  #program(args: readonly string[]): Program {
    const program = startProgram("src/operating/cli/main.ts", args, {
      env: { HAWSER_DATABASE_URL: this.database.url },
      stdin: "ignore",
    });
    this.#undo.push(async () => {
      program.child.kill("SIGKILL");
      await program.ended;
    });
    return program;
  }

  #arrived(text: string): void {
    if (!this.arrivedAt.has(text)) this.arrivedAt.set(text, performance.now());
  }

  #sawOnNats(subject: string, text: string): void {
    if (subject.startsWith("canary.")) this.#arrived(text);
    else this.published.push({ subject, text });
  }

  /** Something of everything that a role can have. */
  async #makeVictim(): Promise<void> {
    const manager = await jetstreamManager(this.nats);
    await manager.streams.add({ name: "VICTIM", subjects: ["victim.stream.>"] });
    await manager.streams.add({ name: "ATTACK", subjects: ["attack.stream.>"] });
    await manager.streams.add({
      name: "KV_attack",
      subjects: ["$KV.attack.>"],
      max_msgs_per_subject: 1,
      allow_direct: true,
    });
    await this.operator.query(`CREATE SCHEMA victim AUTHORIZATION ${this.victim.name}`);
    for (const [role, { name }] of this.attackers) {
      await this.operator.query(`
        CREATE SCHEMA attack_${role};
        CREATE TABLE attack_${role}.calls ("user" text);
        CREATE FUNCTION attack_${role}.note(payload bytea, subject text) RETURNS void LANGUAGE sql
          AS $$INSERT INTO attack_${role}.calls VALUES (current_user)$$;
        CREATE FUNCTION attack_${role}.answer(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
          AS $$INSERT INTO attack_${role}.calls VALUES (current_user); SELECT 'attacked'$$;
        CREATE FUNCTION attack_${role}.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        ALTER SCHEMA attack_${role} OWNER TO ${name};
        ALTER TABLE attack_${role}.calls OWNER TO ${name};
        ALTER FUNCTION attack_${role}.note OWNER TO ${name};
        ALTER FUNCTION attack_${role}.answer OWNER TO ${name};
        ALTER FUNCTION attack_${role}.nothing OWNER TO ${name};`);
    }
    const victim = await this.session(this.victim, "victim");
    await victim.query(`
      CREATE TABLE victim.calls (what text, payload text, "user" text);
      CREATE FUNCTION victim.note(payload bytea, subject text) RETURNS void LANGUAGE sql
        AS $$INSERT INTO victim.calls VALUES ('note', convert_from(payload, 'UTF8'), current_user)$$;
      CREATE FUNCTION victim.answer(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql
        AS $$INSERT INTO victim.calls VALUES ('answer', payload, current_user); SELECT 'answered'$$;`);
    await victim.query("SELECT nats_subscribe('victim.in', 'victim.note')");
    await victim.query("SELECT litmus_pgnats_register_responder('victim.answer', 'victim.answer')");
    await victim.query("SELECT nats_subscribe_stream('VICTIM', 'victim.note', 'victim-stream')");
    await victim.query(`SELECT nats_put_text('victim', 'victim', '${victimMarker}-in-a-bucket')`);
    const later = `clock_timestamp() + interval '30 days'`;
    await victim.query(`SELECT hawser.enqueue('victim.out', '${victimMarker}-for-nats', stream => false)`);
    await victim.query(
      `SELECT hawser.enqueue('victim.out', '${victimMarker}-for-nats-later', stream => false, deliver_at => ${later})`,
    );
    await victim.query(`SELECT hawser.enqueue('victim-nobody', '${victimMarker}-for-peers')`);
    await victim.query(
      `SELECT hawser.enqueue('victim-topic', '${victimMarker}-for-peers-later', deliver_at => ${later})`,
    );
    await victim.query(
      `SELECT hawser.schedule('victim', '0 0 1 1 *', 'victim-topic', '${victimMarker}-of-a-schedule')`,
    );
    await this.operator.query(
      `SELECT hawser.queue_messages('victim-topic', '', ARRAY[convert_to('${victimMarker}-for-peers-queued', 'UTF8')], NULL, NULL, $1, NULL, false, 0::smallint)`,
      [this.victim.name],
    );
    await victim.query("SELECT hawser.open_worker('victim-worker', '{victim-topic}', NULL, 600000, 1, NULL)");
    // Of the first messages, whose ids everybody can guess.
    await this.operator.query(
      `INSERT INTO hawser_data.results (segment, id, role, topic, state, attempts, enqueued_at, ended_at, result, expires_at)
       SELECT 0, n, $1, 'victim-topic', 'done', 1, now(), now(), '"${victimMarker}-result"', 'infinity' FROM generate_series(-1, 10) AS n`,
      [this.victim.name],
    );
    await this.#storeForVictim();
    for (const [origin, source, topic] of [
      ["outbox", "core", "victim.out"],
      ["subscription", "victim.in", "victim.in"],
      ["queue", "", "victim-topic"],
    ]) {
      await this.operator.query(
        `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, message_id, role)
         VALUES ($1, $2, $3, $4, 'handler_failed', 'victim', 1, $5, $6)`,
        [origin, source, topic, Buffer.from(`${victimMarker}-dead-${origin}`), `victim-${origin}`, this.victim.name],
      );
    }
    await victim.query("SELECT litmus_pgnats_reload_conf()");
  }

  /** Stored messages for a peer that does not run. */
  async #storeForVictim(): Promise<void> {
    const options = { listen: "127.0.0.1:0", databaseUrl: this.database.url, nameWaitMs: 5_000 };
    const peer = new Peer({ ...options, name: "victim-peer", topic: "victim-topic", defaults: { durable: true } });
    await peer.handle(peer.topic, () => undefined);
    await peer.start();
    await peer.stop();
    const sender = new Peer({ ...options, name: "victim-sender", topic: "victim-source" });
    await sender.handle(sender.topic, () => undefined);
    await sender.start();
    await sender.send("victim-topic", `${victimMarker}-stored`);
    await sender.stop();
  }
}
