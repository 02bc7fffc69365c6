/**
 * The program of the gateway: what `hawser serve` runs, in a process of its own.
 */
import { Serve } from "../../src/serve/index.js";
import { serveRequests } from "../serve-requests.js";

let serve: Serve | undefined;

const requests = {
  /** Starts answering the functions of a database. */
  async open(databaseUrl: string): Promise<void> {
    serve = await Serve.start({ databaseUrl, gatewayListen: "127.0.0.1:0" });
  },
};

/** What the process answers. */
export type GatewayRequests = typeof requests;

serveRequests(requests, async () => serve?.stop());
