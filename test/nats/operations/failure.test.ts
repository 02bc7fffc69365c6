import { jserrors } from "@nats-io/jetstream/internal";
import { errors } from "@nats-io/transport-node";
import { describe, expect, inject, it } from "vitest";
import { type ErrorCode, HawserError } from "../../../src/foundation/errors/index.js";
import { natsFailure } from "../../../src/nats/connections/operations/failure.js";
import { bytesOf, failureOf, operationsOf, timeoutMs } from "./operations-of.js";

const attempt = { name: 'publish to "a"', subject: "a", changes: true, timeoutMs: 7 };
const api = (err_code: number) => new jserrors.JetStreamApiError({ code: 503, err_code, description: "words" });

describe("natsFailure", () => {
  it.each<[Error, ErrorCode]>([
    [new errors.RequestError("x", { cause: new errors.NoRespondersError("a") }), "no_responders"],
    [new errors.RequestError("connection closed"), "outcome_unknown"],
    [new errors.RequestError("connection disconnected"), "outcome_unknown"],
    [new errors.ClosedConnectionError(), "outcome_unknown"],
    [new errors.TimeoutError(), "nats_timeout"],
    [new errors.InvalidSubjectError("a b"), "invalid_argument"],
    [errors.InvalidArgumentError.format("timeout", "must be greater than 0"), "invalid_argument"],
    [new jserrors.JetStreamNotEnabled("jetstream is not enabled"), "jetstream_unavailable"],
    [api(10008), "jetstream_unavailable"],
    [api(10009), "jetstream_unavailable"],
    [api(10039), "jetstream_unavailable"],
    [api(10076), "jetstream_unavailable"],
    [api(10054), "payload_too_large"],
    [api(10023), "nats_failed"],
    [new Error("kv is only supported on servers 2.6.2 or better"), "nats_failed"],
    [new TypeError("undefined is not a function"), "internal"],
  ])("maps %s to %s", (error, code) => {
    const failure = natsFailure(error, attempt);
    expect(failure.code).toBe(code);
    expect(failure.message).toContain('publish to "a"');
    expect(failure).toBeInstanceOf(HawserError);
    expect(failure.cause).toBe(error);
  });

  it("leaves the outcome open only if something was to be changed", () => {
    const reading = { ...attempt, changes: false };
    expect(natsFailure(new errors.TimeoutError(), attempt).outcome).toBe("unknown");
    expect(natsFailure(new errors.TimeoutError(), reading).outcome).toBeUndefined();
    expect(natsFailure(new errors.RequestError("connection closed"), reading).code).toBe("nats_unavailable");
  });

  it("gives the words and the codes of the server", () => {
    const failure = natsFailure(api(10023), attempt);
    expect(failure.message).toBe('NATS refused the publish to "a": words.');
    expect(failure.detail).toBe("err_code 10023, status 503");
  });

  it("tells JetStream without a leader from none at all", () => {
    expect(natsFailure(api(10008), attempt).message).toContain("temporarily unavailable");
    expect(natsFailure(api(10008), attempt).remedy).toContain("Try again");
    expect(natsFailure(api(10076), attempt).message).toContain("has no JetStream");
  });

  it("passes on an error of Hawser", () => {
    const own = new HawserError("file_missing", "There is no file.");
    expect(natsFailure(own, attempt)).toBe(own);
  });
});

describe("a connection that is being drained", () => {
  it("takes nothing more", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { operations, connection } = used;
    const drained = connection.drain();
    await failureOf("nats_unavailable", () => operations.publish("a", bytesOf(1), { timeoutMs }));
    await failureOf("nats_unavailable", () => operations.request("a", bytesOf(1), { timeoutMs }));
    await failureOf("nats_unavailable", () => operations.keyValue.get("b", "k", { timeoutMs }));
    await drained;
  });
});
