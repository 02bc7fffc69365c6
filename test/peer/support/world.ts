/**
 * What the tests of peers begin with: a database of their own, an operator's look into it, and peers that record.
 */
import pg from "pg";
import { type Handler, type Message, Peer, type PeerOptions, type PeerStatus } from "../../../src/peer/index.js";
import { testDatabase } from "../../support/database.js";
import { Log } from "./log.js";

/**
 * Whether a message is delivered or stored, sent or dropped, is not to depend on how slow the machine is: by default a
 * sender waits longer for its listener than one would elsewhere.
 */
const patient: Partial<PeerOptions> = { ackTimeoutMs: 20_000, connectWaitMs: 20_000 };

/** A message as a handler saw it. */
export interface Received {
  readonly to: string;
  readonly from: string;
  readonly sender: string;
  readonly text: string;
  readonly headers: Message["headers"];
  readonly attempt: number;
  readonly delivery: Message["delivery"];
}

/** A peer that remembers its messages and its statuses. */
export class TestPeer extends Peer {
  readonly received = new Log<Received>();
  readonly statuses = new Log<PeerStatus>();

  constructor(options: PeerOptions) {
    super(options);
    this.on("status", (status) => this.statuses.push(status));
  }

  /** Runs with a handler that records, and then does what `handler` does. */
  async record(handler?: Handler): Promise<void> {
    await this.run((message) => {
      this.received.push(received(message));
      return handler?.(message);
    });
  }

  /** The texts received so far. */
  get texts(): string[] {
    return this.received.all.map(({ text }) => text);
  }

  /** Resolves with a status of that kind, past or future. */
  saw<Kind extends PeerStatus["kind"]>(
    kind: Kind,
    wanted: (status: Extract<PeerStatus, { kind: Kind }>) => boolean = () => true,
    from = 0,
  ): Promise<Extract<PeerStatus, { kind: Kind }>> {
    return this.statuses.find(
      (status): status is Extract<PeerStatus, { kind: Kind }> =>
        status.kind === kind && wanted(status as Extract<PeerStatus, { kind: Kind }>),
      from,
    );
  }
}

/** What a handler sees of a message, to be kept. */
export function received(message: Message): Received {
  const { to, from, sender, headers, attempt, delivery } = message;
  return { to, from, sender, text: Buffer.from(message.payload).toString(), headers, attempt, delivery };
}

/** A database and the peers on it. Disposing stops them and drops it. */
export interface PeerWorld extends AsyncDisposable {
  readonly url: string;
  /** A peer, not running yet. Its topic is its name up to the first hyphen. */
  peer(name: string, options?: Partial<PeerOptions>): TestPeer;
  /** The same, running with a handler that records. */
  started(name: string, options?: Partial<PeerOptions>, handler?: Handler): Promise<TestPeer>;
  /** Runs a statement as superuser, with numbers for bigint columns. */
  query<Row extends object>(text: string, values?: unknown[]): Promise<Row[]>;
  /** The number of stored messages. */
  storedMessages(): Promise<number>;
}

/** Makes a world. */
export async function peerWorld(options: { readonly migrated?: boolean } = {}): Promise<PeerWorld> {
  const database = await testDatabase({ migrated: options.migrated ?? true });
  const operator = new pg.Client({ connectionString: database.url });
  operator.on("error", () => undefined);
  operator.setTypeParser(pg.types.builtins.INT8, Number);
  await operator.connect();
  const peers: TestPeer[] = [];
  const query = async <Row extends object>(text: string, values?: unknown[]): Promise<Row[]> =>
    (await operator.query<Row>(text, values)).rows;
  const peer = (name: string, peerOptions: Partial<PeerOptions> = {}): TestPeer => {
    const topic = name.split("-")[0] as string;
    const own = { name, topic, listen: "127.0.0.1:0", databaseUrl: database.url };
    const made = new TestPeer({ ...own, ...patient, ...peerOptions });
    peers.push(made);
    return made;
  };
  return {
    url: database.url,
    peer,
    async started(name, peerOptions, handler) {
      const made = peer(name, peerOptions);
      await made.record(handler);
      return made;
    },
    query,
    async storedMessages() {
      const [row] = await query<{ count: number }>("SELECT count(*) FROM hawser.conn_messages");
      return row?.count ?? 0;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(peers.map((each) => each.stop({ deadlineMs: 2_000 })));
      await operator.end();
      await database.drop();
    },
  };
}
