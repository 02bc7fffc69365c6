/**
 * The half of a foreign peer that works in Postgres: the statements of docs/store-protocol.md, in the order that the page
 * says. One connection is enough for it: the session.
 */
import { createHash, randomBytes, randomUUID } from "node:crypto";
import pg from "pg";
import { statement } from "./statements.js";

/** A place in a channel. */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** A channel as its listener finds it. */
export interface OwnedChannel {
  readonly channelId: number;
  readonly cursor: Position;
}

/** A row of a drain. */
export interface DrainedRow extends Position {
  readonly topicId: number;
  readonly codec: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly payload: Buffer;
}

const maxRows = 100;
const maxBytes = 1 << 20;

/** The NOTIFY channel of a listener. */
export function messageChannel(listenerName: string): string {
  return `hawser_messages_${createHash("sha256").update(listenerName).digest("hex").slice(0, 40)}`;
}

/** The session of one peer, which has its name. */
export class ForeignStore implements AsyncDisposable {
  readonly #session: pg.Client;
  readonly name: string;
  readonly epoch: number;

  private constructor(session: pg.Client, name: string, epoch: number) {
    this.#session = session;
    this.name = name;
    this.epoch = epoch;
  }

  /** Takes the name: first the epoch, then the fence. */
  static async open(databaseUrl: string, name: string): Promise<ForeignStore> {
    const session = new pg.Client({ connectionString: databaseUrl });
    session.on("error", () => undefined);
    session.setTypeParser(pg.types.builtins.INT8, Number);
    await session.connect();
    try {
      const { rows: programs } = await session.query<{ oldest: number }>(statement("migrations"));
      if (programs[0]!.oldest > 1)
        throw new Error(`the schema needs migration ${programs[0]!.oldest}; this peer knows 1`);
      const key = randomBytes(8).readBigInt64BE();
      const { rows: own } = await session.query<{ taken: boolean; epoch: number }>(statement("own-name"), [
        name,
        randomUUID(),
        key,
      ]);
      const [{ taken, epoch }] = own as [(typeof own)[number]];
      if (!taken) throw new Error(`the name "${name}" is in use`);
      const { rows: fence } = await session.query<{ held: boolean }>(statement("raise-fence"), [name, epoch]);
      if (fence[0]?.held !== true) throw new Error(`another one has taken the name "${name}"`);
      return new ForeignStore(session, name, epoch);
    } catch (error) {
      await session.end();
      throw error;
    }
  }

  /** Newest first. */
  async secrets(): Promise<Buffer[]> {
    return (await this.#rows<{ secret: Buffer }>("secrets", [])).map(({ secret }) => secret);
  }

  async listenersOf(topic: string): Promise<{ addr: string; listener_name: string; max_message_bytes: number }[]> {
    return await this.#rows("listeners", [topic]);
  }

  async idOfTopic(topic: string): Promise<number> {
    return (await this.#rows<{ id: number }>("id-of-topic", [topic]))[0]!.id;
  }

  async topicOfId(key: number): Promise<string | undefined> {
    return (await this.#rows<{ topic: string }>("topic-of-id", [key]))[0]?.topic;
  }

  async openChannel(sourceTopic: string, listenerName: string): Promise<{ channel_id: number }> {
    return (await this.#rows<never>("open-channel", [this.name, sourceTopic, listenerName]))[0]!;
  }

  /** Address of a listener; undefined if it is not listed. */
  async addressOf(listenerName: string): Promise<string | undefined> {
    return (await this.#rows<{ addr: string }>("address", [listenerName]))[0]?.addr;
  }

  async rememberRoute(
    sourceTopic: string,
    topic: string,
    listener: { listener_name: string; addr: string; max_message_bytes: number },
  ): Promise<void> {
    const { listener_name, addr, max_message_bytes } = listener;
    await this.#rows("remember-route", [`${this.name}:${sourceTopic}`, topic, listener_name, addr, max_message_bytes]);
  }

  async routesOf(sourceTopic: string, topic: string): Promise<string[]> {
    const rows = await this.#rows<{ listener_name: string }>("routes", [`${this.name}:${sourceTopic}`, topic]);
    return rows.map(({ listener_name }) => listener_name);
  }

  /** Stores messages of one topic, and tells their listener. False: the name is lost. */
  async store(
    channel: { channelId: number; listenerName: string },
    firstNumber: number,
    messages: readonly { topicId: number; payload: Uint8Array; headers?: readonly (readonly [string, string])[] }[],
  ): Promise<boolean> {
    const [answer] = await this.#rows<{ held: boolean }>("store-messages", [
      this.name,
      this.epoch,
      channel.channelId,
      firstNumber,
      messages.map(({ topicId }) => topicId),
      messages.map(({ payload }) => payload.length),
      messages.map(() => 0),
      JSON.stringify(messages.map(({ headers = null }) => headers)),
      Buffer.concat(messages.map(({ payload }) => payload)),
    ]);
    if (answer?.held !== true) return false;
    await this.#rows("announce", [messageChannel(channel.listenerName), String(channel.channelId)]);
    return true;
  }

  async ownedChannels(): Promise<OwnedChannel[]> {
    const rows = await this.#rows<{ channel_id: number; cursor_epoch: number; cursor: number }>("owned-channels", [
      this.name,
    ]);
    return rows.map(({ channel_id, cursor_epoch, cursor }) => ({
      channelId: channel_id,
      cursor: { epoch: Number(cursor_epoch), number: Number(cursor) },
    }));
  }

  async channelsWithMessages(): Promise<number[]> {
    const rows = await this.#rows<{ channel_id: number }>("channels-with-messages", [this.name]);
    return rows.map(({ channel_id }) => channel_id);
  }

  /** Reads the channel that a Hello is checked against. */
  async channel(channelId: number): Promise<
    | {
        sender_name: string;
        source_topic: string;
        listener_name: string;
        cursor_epoch: number;
        cursor: number;
      }
    | undefined
  > {
    const [row] = await this.#rows<never>("channel", [channelId]);
    return row;
  }

  async senderEpoch(name: string): Promise<number | undefined> {
    return (await this.#rows<{ epoch: number }>("sender-epoch", [name]))[0]?.epoch;
  }

  async countAfter(channelId: number, { epoch, number }: Position): Promise<number> {
    return (await this.#rows<{ counted: number }>("count", [channelId, epoch, number, 4096]))[0]!.counted;
  }

  async drainAfter(channelId: number, { epoch, number }: Position): Promise<{ rows: DrainedRow[]; left: number }> {
    const parameters = [channelId, epoch, number, maxRows, maxBytes, 4096];
    const rows = await this.#rows<DrainedRow & { topic_id: number; counted: number; headers: never }>(
      "drain",
      parameters,
    );
    return {
      rows: rows.map((row) => ({ ...row, topicId: row.topic_id, headers: row.headers ?? [] })),
      left: (rows[0]?.counted ?? 0) - rows.length,
    };
  }

  /** Moves the cursor. "lost": the name; "foreign": the channel is another listener's. */
  async commit(channelId: number, { epoch, number }: Position): Promise<"committed" | "lost" | "foreign"> {
    const parameters = [this.name, this.epoch, [channelId], [epoch], [number], null, null];
    const [row] = await this.#rows<{ held: boolean; moved: boolean | null }>("commit-cursors", parameters);
    if (row?.held !== true) return "lost";
    return row.moved === null ? "foreign" : "committed";
  }

  /** Enters the directory, and hears of stored messages from then on. */
  async register(topic: string, addr: string, onAnnounced: (channelId: number) => void): Promise<void> {
    const channel = messageChannel(this.name);
    this.#session.on("notification", (heard) => {
      if (heard.channel === channel) onAnnounced(Number(heard.payload));
    });
    await this.#session.query(`LISTEN "${channel}"`);
    const parameters = [this.name, this.epoch, addr, 67108864, false, [topic], [false], true];
    await this.#whileHeld("enter-directory", parameters);
  }

  /** Leaves the directory and gives the name back. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#whileHeld("leave-directory", [this.name, this.epoch, true, true, []]);
      await this.#rows("release-name", [this.name, true]);
    } finally {
      await this.#session.end();
    }
  }

  async #whileHeld(name: string, values: unknown[]): Promise<void> {
    const [answer] = await this.#rows<{ held: boolean }>(name, values);
    if (answer?.held !== true) throw new Error(`the name "${this.name}" is lost`);
  }

  async #rows<Row extends object>(name: string, values: unknown[]): Promise<Row[]> {
    return (await this.#session.query<Row>(statement(name), values)).rows;
  }
}
