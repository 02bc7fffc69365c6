/**
 * Keeps a channel connected: dials its listener where that is now, again and again, with a pause that grows.
 */
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import type { OutgoingMessage, SenderChannel } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import { Backoff, backoffMs, shared } from "../runtime/index.js";
import type { ChannelOwner } from "../store/index.js";
import { type Dialled, dial, type SenderConnection } from "../transport/index.js";
import type { PeerContext } from "./context.js";
import type { LinkRequests } from "./link-requests.js";

/** Where a listener can be reached, and what it takes. */
export interface ListenerAddress {
  /** Undefined while it is not in the directory. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
}

/** A channel as it is known when its link is made. */
export interface DialledChannel {
  /** The listener that the channel was made for. */
  readonly listenerName: string;
  /** The topic through which the listener was met first, for the status. */
  readonly topic: string;
  readonly connectionKey: number;
  readonly address: ListenerAddress;
  /** The channel's owner. */
  readonly owner: string;
}

/** The part of each wait that is drawn at random. */
const jitter = 0.5;

export class ListenerDial {
  /** The established connection. */
  connection: SenderConnection | undefined;
  connectionKey: number;
  /** Who has the channel, while that is not the listener that it was made for. */
  #owner: Pick<ChannelOwner, "name" | "addr" | "maxMessageBytes"> | undefined;
  #address: ListenerAddress;
  #dialling: AbortController | undefined;
  #redial: NodeJS.Timeout | undefined;
  readonly #backoff = new Backoff({
    minMs: protocolConstants.reconnectMinMs,
    maxMs: protocolConstants.reconnectMaxMs,
    jitter,
  });
  /** How often in a row the listener did not accept the mesh secret it was shown. */
  #refusedSecrets = 0;
  /** False from a move to another database server until the channel's key there is known. */
  #keyIsKnown = true;
  #stopped = false;

  readonly #context: PeerContext;
  readonly #dialled: DialledChannel;
  readonly #channel: SenderChannel<OutgoingMessage>;
  readonly #requests: LinkRequests;
  readonly #onEvent: () => void;

  /**
   * @param channel hears of the connection; not of one that was destroyed here
   * @param requests hears of each
   * @param onEvent called behind each event that may have moved the channel's deadline
   */
  constructor(
    context: PeerContext,
    dialled: DialledChannel,
    channel: SenderChannel<OutgoingMessage>,
    requests: LinkRequests,
    onEvent: () => void,
  ) {
    this.#context = context;
    this.#dialled = dialled;
    this.#channel = channel;
    this.#requests = requests;
    this.#onEvent = onEvent;
    this.connectionKey = dialled.connectionKey;
    this.#address = dialled.address;
    const { owner } = dialled;
    if (owner !== dialled.listenerName) this.#owner = { name: owner, addr: undefined, maxMessageBytes: undefined };
  }

  begin(): void {
    if (this.isHandedOver) void this.lookForOwner();
    else this.#connect();
  }

  /** An attempt to connect is under way. */
  get isDialling(): boolean {
    return this.#dialling !== undefined;
  }

  /** Who has the channel now. */
  get ownerName(): string {
    return this.#owner?.name ?? this.#dialled.listenerName;
  }

  /** Whether another peer has the channel than the listener that it was made for. */
  get isHandedOver(): boolean {
    return this.#owner !== undefined;
  }

  /** The greatest payload that the listener takes, as last heard. */
  get maxMessageBytes(): number {
    return this.connection?.maxMessageBytes ?? this.#owner?.maxMessageBytes ?? this.#address.maxMessageBytes;
  }

  /** The directory has a new address for the listener, or none any more. */
  relocate(address: ListenerAddress): void {
    const moved = address.addr !== this.#address.addr;
    this.#address = address;
    if (address.addr === undefined || this.isHandedOver) return;
    // The listener is elsewhere by its own word; the old connection may be half-open for a long time yet.
    const { connection } = this;
    if (moved && connection !== undefined) {
      this.drop(connection, new HawserError("connection_lost", "the listener has another address now"));
    }
    if (this.connection !== undefined) return;
    if (moved) this.#dialling?.abort();
    if (moved || this.#dialling === undefined) this.connectNow();
  }

  /** The channel may have another owner, or its owner another address: looks it up, and dials it unless it is connected. */
  readonly lookForOwner = shared(async () => {
    const moved = await this.#readOwner();
    if (this.#stopped) return;
    if (moved) this.#follow();
    else this.connectNow();
  });

  /** Dials at once, unless it is connected. */
  connectNow(): void {
    if (this.connection !== undefined) return;
    clearTimeout(this.#redial);
    this.#backoff.reset();
    this.#connect();
  }

  /** Ends the connection; no dial begins before {@link rekey}. */
  forgetKey(): void {
    this.#keyIsKnown = false;
    this.#dialling?.abort();
    this.connection?.destroy();
    this.connection = undefined;
    this.#requests.onClosed();
  }

  /** The channel's key as the database has it now. */
  rekey(connectionKey: number): void {
    const isNew = connectionKey !== this.connectionKey || !this.#keyIsKnown;
    this.connectionKey = connectionKey;
    this.#keyIsKnown = true;
    if (!isNew) return;
    const { connection } = this;
    if (connection !== undefined) {
      this.drop(connection, new HawserError("connection_lost", "the channel's key has changed"));
    }
    void this.lookForOwner();
  }

  /** Says Goodbye, and dials no more. */
  close(): void {
    this.#stopped = true;
    clearTimeout(this.#redial);
    this.#dialling?.abort();
    const { connection } = this;
    this.connection = undefined;
    this.#requests.onClosed();
    if (connection === undefined) return;
    connection.writeGoodbye();
    connection.end();
    setTimeout(() => connection.destroy(), protocolConstants.reconnectMinMs).unref();
  }

  /** Ends a connection, if it is still the present one. */
  drop(connection: SenderConnection, why: HawserError): void {
    if (connection !== this.connection) return;
    connection.destroy();
    this.#closed(connection, why);
  }

  #connect(): void {
    if (this.#stopped || this.#dialling !== undefined || this.connection !== undefined) return;
    const context = this.#context;
    const { addr } = this.#owner ?? this.#address;
    // No Hello with an epoch that is not surely held: after a failover it may be an older one again.
    const mayCall = context.lease.state === "held" && this.#keyIsKnown;
    if (addr === undefined || !mayCall) {
      this.#channel.onDialFailed(performance.now());
      this.#requests.onUnreachable(
        mayCall ? "it has no address" : `the name "${context.lease.name}" is not surely held`,
      );
      this.#onEvent();
      // Another peer may have the channel by then.
      const { pollMs } = storeConstants;
      this.#redialLater(mayCall ? backoffMs({ minMs: pollMs, maxMs: pollMs, jitter }, 1) : undefined);
      return;
    }
    const dialling = new AbortController();
    this.#dialling = dialling;
    this.#channel.onDialling();
    const handle: { connection: SenderConnection | undefined } = { connection: undefined };
    dial({
      address: addr,
      identity: {
        senderName: context.sender.name,
        sourceTopic: context.sender.sourceTopic,
        listenerName: this.ownerName,
        connectionKey: this.connectionKey,
        epoch: this.#channel.epoch,
      },
      maxAnswerBytes: context.settings.maxMessageBytes,
      secret: context.secrets.toDial(this.#refusedSecrets),
      tls: context.tls,
      allowPlaintext: context.settings.allowPlaintext,
      signal: dialling.signal,
      handlers: {
        onAck: (ack) => {
          this.#channel.onAck(handle.connection, ack, performance.now());
          this.#onEvent();
        },
        onAnswer: (answer) => {
          if (handle.connection === this.connection) this.#requests.onAnswer(answer);
        },
        onGoodbye: (goodbye) => {
          this.#channel.onGoodbye(handle.connection, goodbye, performance.now());
          this.#onEvent();
          handle.connection?.end();
        },
        onDrain: () => {
          this.#channel.onWritable(handle.connection, performance.now());
          if (handle.connection === this.connection) this.#requests.onDrain();
          this.#onEvent();
        },
        onClosed: (error) => this.#closed(handle.connection, error),
      },
    }).then(
      (dialled) => {
        if (this.#dialling === dialling) this.#dialling = undefined;
        handle.connection = dialled.connection;
        if (!this.#stopped && !dialling.signal.aborted) this.#established(dialled);
        else {
          dialled.connection.destroy();
          this.#connect();
        }
      },
      (error: HawserError) => {
        if (this.#dialling === dialling) this.#dialling = undefined;
        if (!this.#stopped) this.#dialFailed(addr, error, dialling.signal.aborted);
      },
    );
  }

  #established({ connection, welcome }: Dialled): void {
    this.connection = connection;
    this.#backoff.reset();
    this.#refusedSecrets = 0;
    const { listenerName: peer, topic } = this.#dialled;
    const message = `connected to "${this.ownerName}" at ${(this.#owner ?? this.#address).addr}`;
    this.#context.status.tell({ kind: "peer_connected", topic, peer, message });
    this.#channel.onConnected(connection, welcome, performance.now());
    this.#requests.onConnected(connection);
    this.#onEvent();
  }

  #dialFailed(addr: string, error: HawserError, aborted: boolean): void {
    this.#channel.onDialFailed(performance.now());
    if (!aborted) this.#requests.onUnreachable(error.message);
    this.#onEvent();
    if (aborted) {
      this.#connect();
      return;
    }
    if (error.code === "unauthenticated") this.#refusedSecrets += 1;
    if (error.code !== "connection_lost") {
      const { listenerName: peer, topic } = this.#dialled;
      const message = `${addr}: ${error.message}`;
      this.#context.status.tell({ kind: "sender_send_error", topic, peer, message, error });
    }
    void this.#afterRefusal(error);
    this.#redialLater();
  }

  /** A refusal is no proof: the catalog has the truth. */
  async #afterRefusal(error: HawserError): Promise<void> {
    const { store, lease, secrets } = this.#context;
    try {
      if (error.code === "unauthenticated") await secrets.refresh();
      if (error.code !== "fenced") return;
      const epoch = (await store.peerEpoch(lease.name)) ?? 0;
      // The name may have been lost or taken again while the catalog answered. Greater, not other: a server that a
      // failover has left behind may still answer with an older one.
      if (lease.state === "held" && epoch > lease.epoch) {
        this.#context.nameLost(`"${this.#dialled.listenerName}" refused an old epoch`);
      }
    } catch (cause) {
      this.#context.logger.debug({ err: cause }, "could not look up why a listener refused; dialling again");
    }
  }

  #closed(connection: SenderConnection | undefined, error: HawserError | undefined): void {
    if (connection === undefined || connection !== this.connection) return;
    this.connection = undefined;
    if (this.#stopped) return;
    const { listenerName: peer, topic } = this.#dialled;
    const message = error === undefined ? `"${peer}" said goodbye` : error.message;
    this.#context.status.tell({ kind: "peer_disconnected", topic, peer, message });
    if (error instanceof HawserError && error.code === "fenced") void this.#afterRefusal(error);
    this.#channel.onClosed(connection, performance.now());
    this.#requests.onClosed();
    this.#onEvent();
    this.#redialLater();
  }

  #redialLater(waitMs = this.#backoff.failed()): void {
    if (this.#stopped) return;
    clearTimeout(this.#redial);
    this.#redial = setTimeout(async () => {
      this.#connect();
      // The channel may have been handed over since the last dial. Mostly it was not: the dial does not wait for the answer.
      if ((await this.#readOwner()) && !this.#stopped) this.#follow();
    }, waitMs);
  }

  /** The channel has another owner, or its owner another address. */
  #follow(): void {
    const { connection } = this;
    if (connection !== undefined) {
      this.drop(connection, new HawserError("connection_lost", "the channel has another listener now"));
    }
    this.#dialling?.abort();
    this.connectNow();
  }

  /** Reads who has the channel, and where. @returns whether another peer, or another address, is to be dialled */
  async #readOwner(): Promise<boolean> {
    if (!this.#keyIsKnown) return false;
    try {
      const found = await this.#context.store.channelOwner(this.connectionKey);
      if (found === undefined) return false;
      const before = this.#owner;
      this.#owner = found.name === this.#dialled.listenerName ? undefined : found;
      return before?.name !== this.#owner?.name || before?.addr !== this.#owner?.addr;
    } catch (err) {
      this.#context.logger.debug({ err }, "could not look up a channel's owner; dialling the one known");
      return false;
    }
  }
}
