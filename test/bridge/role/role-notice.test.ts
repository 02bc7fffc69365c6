import fc from "fast-check";
import { expect, it } from "vitest";
import { roleNotice } from "../../../src/nats/bridge/role/role-notices.js";
import { splitAddresses } from "../../../src/nats/bridge/role/role-watch.js";

it("has both spellings of the addresses, and the keys in order", () => {
  expect(roleNotice({ status: "Master", addresses: ["127.0.0.1"], port: 5432, name: "pg-1" })).toBe(
    '{"status":"Master","listen_adresses":["127.0.0.1"],"listen_addresses":["127.0.0.1"],"port":5432,"name":"pg-1"}',
  );
  expect(roleNotice({ status: "Replica", addresses: ["*"], port: 5433, name: null })).toBe(
    '{"status":"Replica","listen_adresses":["*"],"listen_addresses":["*"],"port":5433,"name":null}',
  );
});

/** All characters, and halves of surrogate pairs. */
const anyCharacter = fc.nat(0x10ffff).map((point) => String.fromCodePoint(point));

it("is JSON that says what was given, whatever the name", () => {
  const notice = fc.record({
    status: fc.constantFrom("Master" as const, "Replica" as const),
    addresses: fc.array(fc.string()),
    port: fc.integer({ min: 1, max: 65_535 }),
    name: fc.option(fc.string({ unit: anyCharacter })),
  });
  fc.assert(
    fc.property(notice, (given) => {
      const { addresses, ...same } = given;
      expect(JSON.parse(roleNotice(given))).toEqual({
        ...same,
        listen_adresses: addresses,
        listen_addresses: addresses,
      });
    }),
  );
});

it.each([
  ["localhost", ["localhost"]],
  ["*", ["*"]],
  ["127.0.0.1, ::1 ,10.0.0.7", ["127.0.0.1", "::1", "10.0.0.7"]],
  ["", []],
])("splits listen_addresses = '%s'", (value, addresses) => {
  expect(splitAddresses(value)).toEqual(addresses);
});
