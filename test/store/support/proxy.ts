/**
 * A wire to Postgres that can be long, that can be cut, and that can keep the server's answers back.
 */
import net from "node:net";

/**
 * Stage at which a query is cut: before it reaches the server; after that, without a wait for its outcome; or after the
 * answer of the server, which is dropped.
 */
export type CutStage = "before" | "sent" | "answered";

/** How a connection ends before a session is up: as by a server that has no free session, or by a reset. */
export type ConnectionFault = "refused" | "reset";

/** A TCP proxy in front of a database server. */
export interface Proxy extends AsyncDisposable {
  /** The database's URL by way of the proxy. */
  readonly url: string;
  /** From here on nothing that the server says arrives, on all connections. */
  keepAnswersBack(): void;
  /** From here on nothing arrives in either direction; the connections stay open. */
  freeze(): void;
  /** The same for the present connections alone, as when a router forgets them. New ones go through. */
  freezePresent(): void;
  /** Ends all connections. New ones go through again. With `keepServer` the server does not hear of it. */
  cut(options?: { readonly keepServer: boolean }): void;
  /**
   * Ends the connection on which the `nth` question from now on comes that holds the text, at that stage. Resolves when
   * that has happened.
   */
  cutAt(text: string, stage: CutStage, nth?: number): Promise<void>;
  /** Holds all answers back on the connection on which the next question comes that holds the text. Resolves with what lets them come. */
  holdAt(text: string): Promise<() => void>;
  /** The `nth` connection from now on fails, and no other. Resolves when it has. */
  failConnection(nth: number, fault: ConnectionFault): Promise<void>;
  /** New connections go to another server; the database's name stays. */
  leadTo(databaseUrl: string): void;
}

/** What a server with max_connections sessions says to a further one. */
const noFreeSession = ((): Buffer => {
  const fields = Buffer.from("SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0");
  const head = Buffer.from("E\0\0\0\0");
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
})();

/**
 * Starts a proxy in front of the server of a database URL.
 *
 * @param options.roundTripMs how long a question and its answer are under way together
 */
export async function startProxy(databaseUrl: string, { roundTripMs = 0 } = {}): Promise<Proxy> {
  let target = new URL(databaseUrl);
  const pairs = new Set<{ client: net.Socket; server: net.Socket; keepsServer: boolean; isFrozen: boolean }>();
  let forwardsAnswers = true;
  let forwardsQuestions = true;
  let trap: { readonly text: string; readonly stage: CutStage; nth: number; readonly sprung: () => void } | undefined;
  const pass = (to: net.Socket, bytes: Buffer): void => {
    if (roundTripMs === 0) to.write(bytes);
    else setTimeout(() => to.write(bytes), roundTripMs / 2);
  };
  let hold: { readonly text: string; readonly held: (release: () => void) => void } | undefined;
  let fault: { readonly kind: ConnectionFault; nth: number; readonly failed: () => void } | undefined;
  const listener = net.createServer((client) => {
    if (fault !== undefined && --fault.nth === 0) {
      client.on("error", () => undefined);
      if (fault.kind === "reset") client.resetAndDestroy();
      else client.once("data", () => client.end(noFreeSession));
      fault.failed();
      fault = undefined;
      return;
    }
    const server = net.connect(Number(target.port), target.hostname);
    const pair = { client, server, keepsServer: false, isFrozen: false };
    pairs.add(pair);
    /** Trap of this connection, once its query has come. */
    let mine: typeof trap;
    const spring = (): void => {
      client.destroy();
      server.destroy();
      mine?.sprung();
    };
    client.on("data", (bytes) => {
      if (!forwardsQuestions || pair.isFrozen) return;
      if (hold !== undefined && bytes.includes(hold.text)) {
        server.pause();
        hold.held(() => server.resume());
        hold = undefined;
      }
      if (trap === undefined || !bytes.includes(trap.text) || --trap.nth > 0) return pass(server, bytes);
      mine = trap;
      trap = undefined;
      if (mine.stage === "before") return spring();
      // Only when the kernel has it: what is destroyed before loses what it was given.
      server.write(bytes, () => mine?.stage === "sent" && spring());
    });
    server.on("data", (bytes) => {
      if (mine?.stage === "answered") spring();
      else if (mine === undefined && forwardsAnswers && !pair.isFrozen) pass(client, bytes);
    });
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        if (socket === client && pair.keepsServer) return;
        client.destroy();
        server.destroy();
        pairs.delete(pair);
      });
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String((listener.address() as net.AddressInfo).port);
  const cut = ({ keepServer } = { keepServer: false }): void => {
    for (const pair of pairs) {
      pair.keepsServer = keepServer;
      pair.client.destroy();
      if (!keepServer) pair.server.destroy();
    }
    forwardsAnswers = true;
    forwardsQuestions = true;
  };
  return {
    url: url.href,
    keepAnswersBack: () => {
      forwardsAnswers = false;
    },
    freeze: () => {
      forwardsAnswers = false;
      forwardsQuestions = false;
    },
    freezePresent: () => {
      for (const pair of pairs) pair.isFrozen = true;
    },
    cut,
    cutAt: (text, stage, nth = 1) =>
      new Promise((sprung) => {
        trap = { text, stage, nth, sprung };
      }),
    holdAt: (text) =>
      new Promise((held) => {
        hold = { text, held };
      }),
    failConnection: (nth, kind) =>
      new Promise((failed) => {
        fault = { kind, nth, failed };
      }),
    leadTo: (otherUrl) => {
      target = new URL(otherUrl);
    },
    [Symbol.asyncDispose]: async () => {
      cut();
      await new Promise<void>((resolve) => listener.close(() => resolve()));
    },
  };
}
