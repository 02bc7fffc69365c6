/**
 * The address of a gateway that was killed.
 */
import { describe, expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import { ServeProcess } from "../faults/support/serve-process.js";
import { patience, testGateway } from "../support/gateway.js";
import { onServer, rowsOf } from "../support/on-server.js";

describe("a gateway that was killed", () => {
  it("is passed over by its sessions and new ones, is the same when it starts again there, and is forgotten by the next one", async () => {
    await using gateway = await testGateway();
    const { url } = gateway.database;
    const sql = "SELECT host, port FROM hawser_bridge_data.gateways ORDER BY started_at DESC";
    const addresses = async () => (await rowsOf(url, sql)).map(({ host, port }) => `${host}:${port}`);
    const call = () => onServer(url, "SELECT nats_publish_text('addresses.a', 'x')");
    const killed = await ServeProcess.start(url, ["--tune", `natsWaitMs=${patience.tuning.natsWaitMs}ms`]);
    const session = await gateway.connect();
    try {
      expect(await addresses()).toEqual([`127.0.0.1:${killed.port}`, gateway.serve.address]);
      const info = async () => (await session.query("SELECT client_id FROM nats_get_server_info()")).rows[0].client_id;
      const before = gateway.serve.sessionCount;
      const first = await info();
      expect(gateway.serve.sessionCount).toBe(before);
      await killed.crash();
      expect(await info()).not.toBe(first);
      expect(gateway.serve.sessionCount).toBe(before + 1);
      await call();
      await killed.start();
      expect(await addresses()).toEqual([`127.0.0.1:${killed.port}`, gateway.serve.address]);
      await call();
    } finally {
      await session.end();
      await killed.crash();
    }
    await using next = await serve({ databaseUrl: url, listen: "127.0.0.1:0", ...patience });
    expect(await addresses()).toEqual([next.address, gateway.serve.address]);
  });
});
