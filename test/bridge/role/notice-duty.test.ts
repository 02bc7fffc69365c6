import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { NoticeDuty, type NoticePlace } from "../../../src/bridge/role/notice-duty.js";
import type { PostgresRole } from "../../../src/bridge/role/role-watch.js";

const place: NoticePlace = { server: "127.0.0.1:4222", subject: "role" };
const master = { status: "Master", subject: "role" };
const replica = { status: "Replica", subject: "role" };

let duty: NoticeDuty;
beforeEach(() => {
  duty = new NoticeDuty();
});

/** What is due, which counts as told from then on. */
function tell() {
  const { due } = duty;
  if (due !== undefined) duty.settle(due);
  return due;
}

describe("on a primary", () => {
  it("nothing is due from a process that does not lead", () => {
    duty.configure(place);
    duty.found("primary");
    expect(duty.due).toBeUndefined();
  });

  it("is told by the process that begins to lead, in whatever order it learns what", () => {
    duty.lead(true);
    expect(duty.due).toBeUndefined();
    duty.found("primary");
    expect(duty.due).toBeUndefined();
    duty.configure(place);
    expect(tell()).toEqual(master);
    expect(duty.due).toBeUndefined();
  });

  it("is told again by a process that leads again", () => {
    duty.configure(place);
    duty.found("primary");
    duty.lead(true);
    tell();
    duty.lead(false);
    expect(duty.due).toBeUndefined();
    duty.lead(true);
    expect(duty.due).toEqual(master);
  });
});

describe("on a standby", () => {
  it("is told by each process, once", () => {
    duty.configure(place);
    duty.found("standby");
    expect(tell()).toEqual(replica);
    duty.found("standby");
    duty.lead(true);
    duty.configure({ ...place });
    expect(duty.due).toBeUndefined();
  });

  it("that is promoted, the leader tells so, and when it is one again each does", () => {
    duty.configure(place);
    duty.found("standby");
    tell();
    duty.found("primary");
    expect(duty.due).toBeUndefined();
    duty.lead(true);
    expect(tell()).toEqual(master);
    duty.found("standby");
    expect(tell()).toEqual(replica);
  });

  it("is told again when Postgres was away", () => {
    duty.configure(place);
    duty.found("standby");
    tell();
    duty.found("unknown");
    expect(duty.due).toBeUndefined();
    duty.found("standby");
    expect(duty.due).toEqual(replica);
  });
});

it.each([
  ["another subject", { ...place, subject: "elsewhere" }],
  ["another NATS server", { ...place, server: "127.0.0.1:4223" }],
])("%s is told of the present role", (_what, other) => {
  duty.configure(place);
  duty.found("standby");
  tell();
  duty.configure(other);
  expect(duty.due).toEqual({ status: "Replica", subject: other.subject });
});

it("only the newest is due, and one that is not due any more cannot be settled", () => {
  duty.configure(place);
  duty.found("standby");
  const old = duty.due!;
  duty.found("primary");
  duty.lead(true);
  duty.settle(old);
  expect(duty.due).toEqual(master);
});

it("what is due is what holds, and it is due until it is settled or holds no more", () => {
  const roles: PostgresRole[] = ["primary", "standby", "unknown"];
  const step = fc.oneof(
    fc.record({ role: fc.constantFrom(...roles) }),
    fc.record({ leads: fc.boolean() }),
    fc.record({ place: fc.constantFrom(undefined, place, { ...place, subject: "elsewhere" }) }),
    fc.constant({ settle: true }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const one = new NoticeDuty();
      const now: { role: PostgresRole; leads: boolean; place: NoticePlace | undefined } = {
        role: "unknown",
        leads: false,
        place: undefined,
      };
      const holds = () => {
        const { role, leads } = now;
        const status = role === "standby" ? "Replica" : role === "primary" && leads ? "Master" : undefined;
        return status && now.place && { status, subject: now.place.subject };
      };
      let told: unknown;
      for (const each of steps) {
        const { due } = one;
        if ("settle" in each) {
          if (due !== undefined) one.settle(due);
          told = holds();
        } else {
          Object.assign(now, each);
          if ("role" in each) one.found(each.role);
          if ("leads" in each) one.lead(each.leads);
          if ("place" in each) one.configure(each.place);
          if (JSON.stringify(holds()) !== JSON.stringify(told)) told = undefined;
        }
        expect(one.due).toEqual(told === undefined ? holds() : undefined);
      }
    }),
  );
});
