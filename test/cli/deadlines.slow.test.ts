/**
 * Commands whose server does not answer, with the deadlines that users have.
 */
import { expect, it } from "vitest";
import { silentServer } from "../doctor/support/silent-server.js";
import { hawser } from "./support/hawser.js";

it("a command gives up on a database that accepts connections and says nothing", async () => {
  await using mute = await silentServer();
  const { status, stderr } = await hawser(["topics"], { databaseUrl: `postgres://me@127.0.0.1:${mute.port}/mute` });
  expect(status).toBe(69);
  expect(stderr).toContain("timeout");
});
