/**
 * The generated settings: defaults, ranges, and the check that joins them with what a user gives.
 */
import { describe, expect, it } from "vitest";
import {
  checkHandlerSettings,
  checkPeerSettings,
  handlerSettingsDefaults,
  peerSettingsDefaults,
  peerSettingsRanges,
  retrySettingsDefaults,
  tuningSettingsDefaults,
} from "../../generated/ts/settings/peer.js";
import { shop } from "./support/shop.js";

describe("checkPeerSettings", () => {
  it("gives the defaults for nothing", () => {
    expect(checkPeerSettings({})).toEqual({ ok: true, settings: peerSettingsDefaults });
  });

  it("has the defaults that the design names", () => {
    expect(peerSettingsDefaults).toMatchObject({
      maxMessageBytes: 64 * 1024 * 1024,
      concurrency: 64,
      sendTimeoutMs: 30_000,
      allowPlaintext: false,
    });
    expect(tuningSettingsDefaults).toMatchObject({
      creditBytes: 4 * 1024 * 1024,
      compressThresholdBytes: 1024 * 1024,
      maxSendQueueMessages: 10_000,
      maxSendQueueBytes: 64 * 1024 * 1024,
      ackTimeoutMs: 2000,
    });
    expect(handlerSettingsDefaults).toMatchObject({ timeoutMs: undefined, durable: false, transactional: false });
    expect(retrySettingsDefaults).toMatchObject({ attempts: 5, delayMs: 100 });
  });

  it("takes undefined as left out, and keeps what is given", () => {
    const checked = checkHandlerSettings({ group: undefined, timeoutMs: 100, durable: true });
    expect(checked).toEqual({
      ok: true,
      settings: { ...handlerSettingsDefaults, timeoutMs: 100, durable: true },
    });
  });

  it.each(
    Object.entries(peerSettingsRanges).flatMap(([name, range]) =>
      "min" in range ? [{ name, min: range.min, max: range.max }] : [],
    ),
  )("takes $name from $min to $max and nothing else", ({ name, min, max }) => {
    for (const value of [min, max]) {
      expect(checkPeerSettings({ [name]: value })).toMatchObject({ ok: true, settings: { [name]: value } });
    }
    for (const value of [min - 1, max + 1, min + 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(checkPeerSettings({ [name]: value })).toEqual({
        ok: false,
        violation: {
          path: name,
          value: String(value),
          rule: `must be an integer, ${min} to ${max}`,
          remedy: `Use a value of ${min} to ${max}.`,
        },
      });
    }
  });

  it("tells a caller without types what is of another type", () => {
    expect(checkPeerSettings({ concurrency: "64" } as never)).toMatchObject({
      ok: false,
      violation: { path: "concurrency", value: '"64"' },
    });
    expect(checkHandlerSettings({ durable: 1 } as never)).toMatchObject({
      ok: false,
      violation: { path: "durable", rule: "must be true or false" },
    });
  });

  it("ignores what is no setting", () => {
    expect(checkPeerSettings({ name: "billing-1" } as never)).toEqual({ ok: true, settings: peerSettingsDefaults });
  });
});

describe("settings that are strings", () => {
  it("are checked for their length and values", async () => {
    const { checkShopSettings: check, shopSettingsDefaults: defaults } = (await shop()).settings;
    expect(check({ greeting: "x".repeat(41) })).toMatchObject({ ok: false, violation: { path: "greeting" } });
    expect(check({ sortBy: "size" })).toEqual({ ok: true, settings: { ...defaults, sortBy: "size" } });
    expect(check({ sortBy: "price" })).toMatchObject({
      ok: false,
      violation: { value: '"price"', rule: 'must be one of "time", "size"' },
    });
    expect(defaults).toEqual({
      maxWaiting: 100,
      greeting: 'hello "you"',
      sortBy: "time",
      open: true,
      heating: undefined,
    });
    expect(check({ heating: 31 })).toMatchObject({ ok: false, violation: { path: "heating" } });
  });
});
