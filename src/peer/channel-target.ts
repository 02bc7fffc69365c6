/**
 * Whom a sender dials for a channel. Mostly the listener that the channel was made for, where the phone book has it; but
 * the channel may have been handed over, and then its owner is another peer.
 */
import type { ChannelOwner, ChannelOwners } from "../store/index.js";

/** Where a listener can be reached, and what it takes. */
export interface ListenerAddress {
  /** Undefined while it is not in the phone book. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
}

export class ChannelTarget {
  /** The owner, while it is not the listener itself. */
  #owner: Pick<ChannelOwner, "name" | "addr" | "maxMessageBytes"> | undefined;

  readonly #store: ChannelOwners;
  readonly #listenerName: string;

  /**
   * @param listenerName the listener that the channel was made for
   * @param owner the channel's owner as it was when its key was looked up
   */
  constructor(store: ChannelOwners, listenerName: string, owner: string) {
    this.#store = store;
    this.#listenerName = listenerName;
    if (owner !== listenerName) this.#owner = { name: owner, addr: undefined, maxMessageBytes: undefined };
  }

  /** The channel was handed over to another peer. */
  get isOther(): boolean {
    return this.#owner !== undefined;
  }

  /** Whom to dial. */
  get name(): string {
    return this.#owner?.name ?? this.#listenerName;
  }

  /** Where to dial, given what the phone book has of the listener itself. */
  of(listener: ListenerAddress): ListenerAddress {
    if (this.#owner === undefined) return listener;
    const { addr, maxMessageBytes = listener.maxMessageBytes } = this.#owner;
    return { addr, maxMessageBytes };
  }

  /**
   * Looks up the owner, and where it is.
   *
   * @returns whether another one, or another address, is to be dialled from now on
   * @throws StoreError `store_failed`
   */
  async look(connectionKey: number): Promise<boolean> {
    const found = await this.#store.channelOwner(connectionKey);
    if (found === undefined) return false;
    const before = this.#owner;
    this.#owner = found.name === this.#listenerName ? undefined : found;
    return before?.name !== this.#owner?.name || before?.addr !== this.#owner?.addr;
  }
}
