/**
 * A listener and connections to it over real loopback sockets, with handlers that record what they hear.
 */
import {
  type Authorization,
  type Dialled,
  type DialOptions,
  dial,
  type HandshakeRefusal,
  type Listener,
  type ListenerConnection,
  type ListenerHandlers,
  type ListenOptions,
  listen,
  type SenderHandlers,
} from "../../src/jobs-and-peers/transport/index.js";
import type {
  Ack,
  Answer,
  Batch,
  Goodbye,
  HelloFields,
  Request,
  WelcomeFields,
} from "../../src/jobs-and-peers/wire/index.js";

export const secret = new Uint8Array(32).fill(7);

export const identity: HelloFields = {
  senderName: "billing-1",
  sourceTopic: "billing",
  listenerName: "orders-1",
  channelId: 12,
  epoch: 1_700_000_000_000,
};

export const welcome = { cursorEpoch: 0, cursor: 0, backlog: 0, credit: 4_194_304, queued: 0 };

/** What a listener of a test says in Welcome by itself and of its process. Its MAC is not here. */
export const wholeWelcome = { ...welcome, maxMessageBytes: 1000, capabilities: [] };

/** A list that can be awaited: `next()` is the oldest entry not taken yet, when there is one. */
export class Inbox<T> {
  readonly all: T[] = [];
  #taken = 0;
  #waiting: (() => void) | undefined;

  push(value: T): void {
    this.all.push(value);
    this.#waiting?.();
  }

  async next(): Promise<T> {
    while (this.#taken === this.all.length) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    return this.all[this.#taken++] as T;
  }
}

/** Event of a connection. */
type ConnectionEvent =
  | { readonly kind: "ack"; readonly ack: Ack }
  | { readonly kind: "goodbye"; readonly goodbye: Goodbye | undefined }
  | { readonly kind: "batch"; readonly batch: Batch }
  | { readonly kind: "goLive" }
  | { readonly kind: "request"; readonly request: Request }
  | { readonly kind: "answer"; readonly answer: Answer }
  | { readonly kind: "cancel"; readonly id: number }
  | { readonly kind: "drain" }
  | { readonly kind: "closed"; readonly code: string | undefined; readonly message: string | undefined };

function recordSender(events: Inbox<ConnectionEvent>): SenderHandlers {
  return {
    onAck: (ack) => events.push({ kind: "ack", ack }),
    onAnswer: (answer) => events.push({ kind: "answer", answer }),
    onGoodbye: (goodbye) => events.push({ kind: "goodbye", goodbye }),
    onDrain: () => events.push({ kind: "drain" }),
    onClosed: (error) => events.push({ kind: "closed", code: error?.code, message: error?.message }),
  };
}

function recordListener(events: Inbox<ConnectionEvent>): ListenerHandlers {
  return {
    onBatch: (batch) => events.push({ kind: "batch", batch }),
    onGoLive: () => events.push({ kind: "goLive" }),
    onRequest: (request) => events.push({ kind: "request", request }),
    onCancel: (id) => events.push({ kind: "cancel", id }),
    onDrain: () => events.push({ kind: "drain" }),
    onGoodbye: () => events.push({ kind: "goodbye", goodbye: undefined }),
    onClosed: (error) => events.push({ kind: "closed", code: error?.code, message: error?.message }),
  };
}

/** A listener's end of a connection, with what it heard. */
export interface Accepted {
  readonly connection: ListenerConnection;
  readonly welcomed: WelcomeFields;
  readonly events: Inbox<ConnectionEvent>;
}

/** A listener that accepts everyone who knows {@link secret}, and records. */
export class TestListener implements AsyncDisposable {
  readonly refusals = new Inbox<HandshakeRefusal>();
  readonly accepted = new Inbox<Accepted>();
  #listener!: Listener;

  private constructor() {}

  static async start(overrides: Partial<ListenOptions> = {}): Promise<TestListener> {
    const test = new TestListener();
    test.#listener = await listen({
      address: "127.0.0.1:0",
      listenerName: identity.listenerName,
      secrets: () => [secret],
      authorize: async (): Promise<Authorization> => ({ accept: true, welcome }),
      onConnection: (connection, welcomed) => {
        const events = new Inbox<ConnectionEvent>();
        test.accepted.push({ connection, welcomed, events });
        return recordListener(events);
      },
      onHandshakeRefused: (refusal) => test.refusals.push(refusal),
      maxMessageBytes: 1024 * 1024,
      ...overrides,
    });
    return test;
  }

  get address(): string {
    return this.#listener.boundAddress;
  }

  get port(): number {
    return Number(this.address.split(":").at(-1));
  }

  async close(connections: boolean): Promise<void> {
    await this.#listener.close({ connections });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(true);
  }
}

/** A sender's end of a connection, with what it heard. */
export interface TestSender extends Dialled {
  readonly events: Inbox<ConnectionEvent>;
}

export async function dialTest(address: string, overrides: Partial<DialOptions> = {}): Promise<TestSender> {
  const events = new Inbox<ConnectionEvent>();
  const dialled = await dial({ address, identity, secret, handlers: recordSender(events), ...overrides });
  return { ...dialled, events };
}

/** Both ends of an established connection. */
export interface Pair extends AsyncDisposable {
  readonly sender: TestSender;
  readonly accepted: Accepted;
  readonly listener: TestListener;
}

export async function connectPair(
  overrides: { readonly listen?: Partial<ListenOptions>; readonly dial?: Partial<DialOptions> } = {},
): Promise<Pair> {
  const listener = await TestListener.start(overrides.listen);
  const sender = await dialTest(listener.address, overrides.dial);
  const accepted = await listener.accepted.next();
  return {
    sender,
    accepted,
    listener,
    [Symbol.asyncDispose]: async () => {
      sender.connection.destroy();
      await listener.close(true);
    },
  };
}
