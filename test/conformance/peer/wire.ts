/**
 * Interface of a foreign peer's wire, for any language. Frames are in the form of protobuf JSON: `{ "ping": { "token":
 * "7" } }`, bytes in base64, 64-bit numbers as text, defaults left out.
 */

// biome-ignore lint/suspicious/noExplicitAny: the fields of all frames
export type FrameJson = Record<string, any>;

/** Who calls whom on which channel, with what stands in Hello beside nonce and MAC. */
export interface HelloJson {
  readonly version?: number;
  readonly senderName: string;
  readonly sourceTopic: string;
  readonly listenerName: string;
  readonly channelId: number;
  readonly epoch: string;
  readonly capabilities?: readonly string[];
}

/** A connection after Welcome. Pings are answered below. */
export interface WireConnection {
  send(frame: FrameJson): void;
  /** The next frame; undefined when the connection has ended. */
  receive(): Promise<FrameJson | undefined>;
  end(): void;
}

/** Decision of a listener about a Hello that has proved itself. */
export type Decision = { readonly welcome: FrameJson } | { readonly refuse: { code: string; message: string } };

/** Outcome of a dial: welcomed, or refused with the name of a code (`ERROR_CODE_…`; undefined: without a Refuse). */
export type Dialled =
  | { readonly connection: WireConnection; readonly welcome: FrameJson }
  | { readonly refused: string | undefined };

/** The wire half of a peer. */
export interface Wire extends AsyncDisposable {
  /** Calls a listener, and proves who calls. The MAC is made with the secret over what `hello` says. */
  dial(options: { address: string; secret: Uint8Array; hello: HelloJson }): Promise<Dialled>;
  /** Listens on a free port of 127.0.0.1. Resolves with the address. */
  listen(options: {
    listenerName: string;
    secrets: readonly Uint8Array[];
    decide(hello: HelloJson): Promise<Decision>;
    onConnection(hello: HelloJson, connection: WireConnection): void;
  }): Promise<string>;
}
