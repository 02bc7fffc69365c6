/**
 * Notices to a server that does not confirm them, which is waited for.
 */
import { expect, it } from "vitest";
import { optionsFor } from "../../nats/support/connectors.js";
import { fakeServer, greeting } from "../../nats/support/fake-server.js";
import { eventually } from "../../support/eventually.js";
import { address, testNotices, text } from "./notices.js";

it("a server that does not answer is told once over each connection, and of the next change over the same", async () => {
  const server = await fakeServer((socket) => {
    let isSilent = false;
    socket.write(greeting());
    socket.on("data", (chunk) => {
      const received = chunk.toString("latin1");
      isSilent ||= received.includes("PUB ");
      if (!isSilent && received.includes("PING\r\n")) socket.write("PONG\r\n");
    });
  });
  const { notices, configure, log } = testNotices();
  configure(optionsFor(server));
  notices.found("standby", address);
  const unconfirmed = "the NATS server has not confirmed the role-change notice";
  await eventually("it is not confirmed", () => log.messages("debug").includes(unconfirmed));
  notices.found("primary", address);
  notices.lead(true);
  await eventually("the next change is told", () => server.received().includes(text("Master")));
  expect(server.received().split(text("Replica"))).toHaveLength(2);
  expect(server.sockets).toHaveLength(1);
});
