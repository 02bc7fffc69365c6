import fc from "fast-check";
import { expect, it } from "vitest";
import { NoticeDuty, type NoticePlace } from "../../../src/bridge/role/role-notices.js";
import type { PostgresRole } from "../../../src/bridge/role/role-watch.js";

const place: NoticePlace = { server: "127.0.0.1:4222", subject: "role" };

it("only the newest is due, and one that is not due any more cannot be settled", () => {
  const duty = new NoticeDuty();
  duty.configure(place);
  duty.found("standby");
  const old = duty.due!;
  expect(old).toEqual({ status: "Replica", subject: "role" });
  duty.found("primary");
  duty.lead(true);
  duty.settle(old);
  expect(duty.due).toEqual({ status: "Master", subject: "role" });
});

it("what holds is due, at each place, until it is settled or holds no more: a leader's primary, anybody's standby", () => {
  const roles: PostgresRole[] = ["primary", "standby", "unknown"];
  const places = [undefined, place, { ...place, subject: "elsewhere" }, { ...place, server: "127.0.0.1:4223" }];
  const step = fc.oneof(
    fc.record({ role: fc.constantFrom(...roles) }),
    fc.record({ leads: fc.boolean() }),
    fc.record({ place: fc.constantFrom(...places) }),
    fc.constant({ settle: true }),
  );
  fc.assert(
    fc.property(fc.array(step, { minLength: 10, maxLength: 40 }), (steps) => {
      const duty = new NoticeDuty();
      const now: { role: PostgresRole; leads: boolean; place: NoticePlace | undefined } = {
        role: "unknown",
        leads: false,
        place: undefined,
      };
      const holds = () => {
        const { role, leads } = now;
        const status = role === "standby" ? "Replica" : role === "primary" && leads ? "Master" : undefined;
        return status && now.place && { status, ...now.place };
      };
      let told: unknown;
      for (const each of steps) {
        const { due } = duty;
        if ("settle" in each) {
          if (due !== undefined) duty.settle(due);
          told = holds();
        } else {
          Object.assign(now, each);
          if ("role" in each) duty.found(each.role);
          if ("leads" in each) duty.lead(each.leads);
          // A new object each time, as a definition that is read again is.
          if ("place" in each) duty.configure(each.place && { ...each.place });
          if (JSON.stringify(holds()) !== JSON.stringify(told)) told = undefined;
        }
        const expected = told === undefined ? holds() : undefined;
        expect(duty.due).toEqual(expected && { status: expected.status, subject: expected.subject });
      }
    }),
    { numRuns: 1_000 },
  );
});
