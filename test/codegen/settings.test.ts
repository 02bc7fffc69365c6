/** The generated check that joins the settings that a user gives with their defaults. Strings among them: shop.test.ts. */
import { describe, expect, it } from "vitest";
import {
  checkHandlerSettings,
  checkPeerSettings,
  handlerSettingsDefaults,
  peerSettingsDefaults,
  peerSettingsRanges,
} from "../../generated/ts/settings/peer.js";

describe("the check of settings", () => {
  it("gives the default for what is left out or undefined, and keeps what is given", () => {
    expect(checkPeerSettings({})).toEqual({ ok: true, settings: peerSettingsDefaults });
    expect(checkHandlerSettings({ group: undefined, timeoutMs: 100, durable: true })).toEqual({
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
      const rule = `must be an integer, ${min} to ${max}`;
      const remedy = `Use a value of ${min} to ${max}.`;
      const violation = { path: name, value: String(value), rule, remedy };
      expect(checkPeerSettings({ [name]: value })).toEqual({ ok: false, violation });
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
