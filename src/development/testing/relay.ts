/**
 * TCP proxy in front of a server. The connections through it can be cut and restored on demand, without any effect on
 * the server, other tests or the client's configuration.
 */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { pipeline, Transform } from "node:stream";
import { HawserError } from "../../foundation/errors/index.js";
import { freePort } from "../dev/index.js";

/** Address behind a relay. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** Rewrites the first line of a direction. */
export type RewriteLine = (line: string) => string;

/** Rewrites of the passing data; none by default. */
export interface RelayRules {
  readonly firstOfClient?: RewriteLine | undefined;
  readonly firstOfServer?: RewriteLine | undefined;
}

const lineEnd = "\r\n";
const portAttempts = 5;

/** Relay on a port of 127.0.0.1, which stays the same for its lifetime. */
export class Relay {
  readonly #target: Target;
  readonly #rules: RelayRules;
  readonly #passages = new Set<Passage>();
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;
  #isSilent = false;

  private constructor(target: Target, rules: RelayRules) {
    this.#target = target;
    this.#rules = rules;
  }

  static async start(target: Target, rules: RelayRules = {}): Promise<Relay> {
    const relay = new Relay(target, rules);
    for (let attempt = 1; ; attempt++) {
      // Outside the ephemeral ports, because it is bound again after a cut.
      relay.#port = await freePort();
      try {
        await relay.#listen();
        return relay;
      } catch (error) {
        if (attempt === portAttempts) throw error;
      }
    }
  }

  get port(): number {
    return this.#port;
  }

  /** Ends all connections, and refuses new ones. @param silent keeps connections open without passing data instead */
  async cut(silent: boolean): Promise<void> {
    if (silent) {
      this.#isSilent = true;
      for (const passage of this.#passages) passage.hold();
      return;
    }
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    if (server === undefined) return;
    server.close();
    await once(server, "close");
  }

  /** Passes held data on, and accepts connections again. */
  async restore(): Promise<void> {
    this.#isSilent = false;
    for (const passage of this.#passages) passage.release();
    if (this.#server !== undefined) return;
    try {
      await this.#listen();
    } catch (cause) {
      throw new HawserError("bind_failed", `The port ${this.#port} of the relay was taken while it was cut.`, {
        cause,
      });
    }
  }

  close(): Promise<void> {
    return this.cut(false);
  }

  async #listen(): Promise<void> {
    const server = createServer((client) => this.#accept(client));
    server.listen(this.#port, "127.0.0.1");
    await once(server, "listening");
    this.#server = server;
  }

  #accept(client: Socket): void {
    const server = connect(this.#target);
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    }
    this.#pass(client, server, this.#rules.firstOfClient);
    this.#pass(server, client, this.#rules.firstOfServer);
  }

  #pass(from: Socket, to: Socket, rewrite: RewriteLine | undefined): void {
    const passage = new Passage(rewrite);
    this.#passages.add(passage);
    if (this.#isSilent) passage.hold();
    // The end of either side ends both.
    pipeline(from, passage, to, () => {
      this.#passages.delete(passage);
      from.destroy();
      to.destroy();
    });
  }
}

/**
 * Starts a relay to the server of a URL, and returns the URL of the relay. Returns the URL itself, without a relay, if
 * the URL uses TLS, several addresses or a socket file, so that a client would reject the relay.
 */
export async function relayTo(
  serverUrl: string,
  usualPort: number,
  rules: RelayRules,
): Promise<{ readonly url: string; readonly relay: Relay | undefined }> {
  const direct = { url: serverUrl, relay: undefined };
  if (!URL.canParse(serverUrl)) return direct;
  const url = new URL(serverUrl);
  const sslmode = url.searchParams.get("sslmode") ?? "disable";
  const isPlain = !/^(tls|wss?):$/.test(url.protocol) && ["disable", "allow", "prefer"].includes(sslmode);
  const isOnePlace = url.hostname !== "" && !/[,%]/.test(url.host) && !url.searchParams.has("host");
  if (!isPlain || !isOnePlace) return direct;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const relay = await Relay.start({ host, port: Number(url.port || usualPort) }, rules);
  url.hostname = "127.0.0.1";
  url.port = String(relay.port);
  return { url: url.href, relay };
}

/** Direction of a connection; holds its data while the connection is silently cut. */
class Passage extends Transform {
  #rewrite: RewriteLine | undefined;
  #begun = "";
  #held: (() => void) | undefined;
  #isHeld = false;

  constructor(rewrite: RewriteLine | undefined) {
    super();
    this.#rewrite = rewrite;
  }

  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#held?.();
    this.#held = undefined;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, chunk?: Buffer) => void): void {
    const pass = (): void => {
      const passing = this.#rewritten(chunk);
      if (passing === undefined) done(null);
      else done(null, passing);
    };
    // Backpressure keeps further data in the socket.
    if (this.#isHeld) this.#held = pass;
    else pass();
  }

  #rewritten(chunk: Buffer): Buffer | undefined {
    if (this.#rewrite === undefined) return chunk;
    this.#begun += chunk.toString("latin1");
    const end = this.#begun.indexOf(lineEnd);
    if (end === -1) return undefined;
    const line = this.#rewrite(Buffer.from(this.#begun.slice(0, end), "latin1").toString());
    const rest = Buffer.from(this.#begun.slice(end), "latin1");
    this.#rewrite = undefined;
    this.#begun = "";
    return Buffer.concat([Buffer.from(line), rest]);
  }
}
