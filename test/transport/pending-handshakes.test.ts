import { describe, expect, it } from "vitest";
import { PendingHandshakes } from "../../src/jobs-and-peers/transport/pending-handshakes.js";

function pendingFrom(...hosts: readonly string[]): PendingHandshakes<string> {
  const pending = new PendingHandshakes<string>();
  for (const [index, host] of hosts.entries()) pending.add(`${host} #${index}`, host);
  return pending;
}

describe("pending handshakes", () => {
  it("drop the oldest of the address that has the most", () => {
    const pending = pendingFrom("192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.2");
    expect(pending.oldestOfBusiestOrigin).toBe("192.0.2.9 #1");
    pending.delete("192.0.2.9 #1", "192.0.2.9");
    expect(pending.oldestOfBusiestOrigin).toBe("192.0.2.1 #0");
    expect(pending.size).toBe(3);
  });

  it.each([
    ["one IPv6 network of 64 bits", "2001:db8::1", "2001:DB8:0:0:1:2:3:4", true],
    ["the same with zeros written out", "2001:db8:0:0::1", "2001:db8::ffff", true],
    ["two IPv6 networks", "2001:db8:0:1::1", "2001:db8:0:2::1", false],
    ["an IPv4 address, written as such and as an IPv6 one", "192.0.2.7", "::ffff:192.0.2.7", true],
    ["two IPv4 addresses written as IPv6 ones", "::ffff:192.0.2.7", "::ffff:192.0.2.8", false],
    ["one link with a zone", "fe80::1%eth0", "fe80::2%eth0", true],
  ])("count %s as one origin or not", (_, one, other, same) => {
    const pending = pendingFrom("198.51.100.1", one, other);
    expect(pending.oldestOfBusiestOrigin).toBe(same ? `${one} #1` : "198.51.100.1 #0");
  });

  it("are removed once, whatever is deleted", () => {
    const pending = pendingFrom("192.0.2.1");
    pending.delete("nobody", "192.0.2.1");
    pending.delete("nobody", "192.0.2.2");
    expect([...pending]).toEqual(["192.0.2.1 #0"]);
    pending.delete("192.0.2.1 #0", "192.0.2.1");
    pending.delete("192.0.2.1 #0", "192.0.2.1");
    expect(pending.size).toBe(0);
    expect(pending.oldestOfBusiestOrigin).toBeUndefined();
  });
});
