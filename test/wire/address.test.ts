import { describe, expect, it } from "vitest";
import { formatAddress, isLoopback, parseAddress } from "../../src/jobs-and-peers/wire/index.js";

describe("addresses", () => {
  it.each([
    ["127.0.0.1:4100", "127.0.0.1", 4100],
    ["0.0.0.0:0", "0.0.0.0", 0],
    ["localhost:65535", "localhost", 65535],
    ["orders.example:4100", "orders.example", 4100],
    ["[::1]:4100", "::1", 4100],
    ["[fe80::1%eth0]:1", "fe80::1%eth0", 1],
    ["[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1],
  ])("reads and writes %s", (text, host, port) => {
    expect(parseAddress(text)).toEqual({ host, port });
    expect(formatAddress({ host, port })).toBe(text);
  });

  it.each([
    "",
    "127.0.0.1",
    "127.0.0.1:",
    ":4100",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "127.0.0.1:4100 ",
    "127.0.0.1:1e3",
    "::1:4100",
    "[::1]",
    "[127.0.0.1]:4100",
    "[localhost]:4100",
    "[]:1",
    "tcp://127.0.0.1:4100",
    "a b:1",
    "127.0.0.1:4100\n",
  ])("refuses %j", (text) => {
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it.each([
    "127.0.0.1",
    "127.255.0.3",
    "localhost",
    "LOCALHOST",
    "::1",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::ffff:7f12:3456",
  ])("knows that only this machine reaches %s", (host) => expect(isLoopback(host)).toBe(true));

  it.each([
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "128.0.0.1",
    "126.255.255.255",
    "::ffff:10.0.0.1",
    "::ffff:80.0.0.1",
    "::ffff:7f:1",
    "::2",
    "::1%lo",
    "::7f00:1",
    "localhost.example",
    "127.0.0.1.example",
    "127.1",
    "",
  ])("does not take %j for loopback", (host) => expect(isLoopback(host)).toBe(false));
});
