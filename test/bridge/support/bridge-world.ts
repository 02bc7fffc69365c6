/**
 * A database, a server and clients of both, with what tests of the bridge observe: subjects of their own, the moment from
 * which a subscription is live, logins, and what was logged.
 */
import { headers, type MsgHdrs, type NatsConnection, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { type Login, login } from "../../installation/support/logins.js";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, type TestGatewayOptions, testGateway } from "../../support/gateway.js";
import { type KeptLog, keptLog } from "../role/log.js";

/** Options of `serve` and the database. */
export interface BridgeWorldOptions extends Omit<TestGatewayOptions, "logger"> {
  /** Statements that make tables and functions. */
  readonly sql?: string;
}

export interface BridgeWorld extends TestGateway {
  /** Log of `serve`. */
  readonly log: KeptLog;
  /** All subjects of the test are below it: the NATS server is shared. */
  readonly prefix: string;
  rows<Row extends object = Record<string, unknown>>(sql: string, values?: unknown[]): Promise<Row[]>;
  count(sql: string): Promise<number>;
  /** Resolves when the query counts so many. */
  counts(count: number, sql: string): Promise<void>;
  /**
   * Whether anybody has subscribed to the subject, as far as the server of the connection knows. Who has receives an empty
   * message with the header `Probe`.
   */
  hears(subject: string, nats?: NatsConnection): Promise<boolean>;
  /** Resolves when somebody has. It has received one probe then. */
  live(subject: string, nats?: NatsConnection): Promise<void>;
  /** Subscribes the function, as a superuser, and resolves when it is live. Functions with headers can recognize the probe. */
  subscribe(subject: string, target: string, probe?: string): Promise<void>;
  /** A login in `hawser_nats`, with a schema of its own on its path. */
  user(): Promise<Login & { readonly client: pg.Client }>;
}

/** Makes one. */
export async function bridgeWorld({ sql, ...options }: BridgeWorldOptions = {}): Promise<BridgeWorld> {
  const log = keptLog();
  const gateway = await testGateway({ ...options, logger: log.logger });
  const { client, database } = gateway;
  const undo: (() => Promise<unknown>)[] = [];
  const prefix = `t${nuid.next()}`;
  const hears = async (subject: string, nats = gateway.nats): Promise<boolean> => {
    const inbox = `${prefix}.inbox.${nuid.next()}`;
    let refused = false;
    const answers = nats.subscribe(inbox, {
      callback: (_error, message) => {
        refused ||= message.headers?.code === 503;
      },
    });
    nats.publish(subject, "", { reply: inbox, headers: probeHeaders() });
    await nats.flush();
    answers.unsubscribe();
    return !refused;
  };
  const live = (subject: string, nats?: NatsConnection) =>
    eventually(`somebody hears of ${subject}`, () => hears(subject, nats));
  const world: BridgeWorld = {
    ...gateway,
    log,
    prefix,
    rows: async <Row extends object>(text: string, values?: unknown[]) => (await client.query<Row>(text, values)).rows,
    count: async (text) => Number(await gateway.value(text)),
    counts: (count, text) => eventually(`${count} is ${text}`, async () => (await world.count(text)) === count),
    hears,
    live,
    async subscribe(subject, target, probe = subject) {
      await client.query("SELECT nats_subscribe($1, $2::regprocedure)", [subject, target]);
      await live(probe);
    },
    async user() {
      const made = await login(database.url, "IN ROLE hawser_nats");
      await client.query(`CREATE SCHEMA ${made.role} AUTHORIZATION ${made.role}`);
      await client.query(`ALTER ROLE ${made.role} SET search_path = ${made.role}, public`);
      const own = new pg.Client(made.url);
      own.on("error", () => undefined);
      await own.connect();
      undo.push(async () => {
        await own.end();
        await made[Symbol.asyncDispose]();
      });
      return { ...made, client: own };
    },
    async [Symbol.asyncDispose]() {
      for (const one of undo.splice(0).reverse()) await one();
      await gateway[Symbol.asyncDispose]();
    },
  };
  try {
    if (sql !== undefined) await client.query(sql);
    return world;
  } catch (error) {
    await world[Symbol.asyncDispose]();
    throw error;
  }
}

function probeHeaders(): MsgHdrs {
  const made = headers();
  made.set("Probe", "1");
  return made;
}
