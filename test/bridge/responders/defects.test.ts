/**
 * What no runner and no database should ever hand over: it costs one request at the most.
 */
import { expect, it } from "vitest";
import { testNatsUrl } from "../../support/database.js";
import { answer, client, errorOf, responder, serviceConnection, testService } from "./support.js";

it("an answer that is no bytes is logged, and the next request runs", async () => {
  let isFirst = true;
  const { service, logged } = testService(
    {
      "public.answer(bytea)": () => {
        const outcome = isFirst ? ({ kind: "answer", payload: "no bytes" } as never) : answer("bytes");
        isFirst = false;
        return outcome;
      },
    },
    { maxConcurrent: 1 },
  );
  const subject = `defects.${process.pid}.text`;
  await service.configure([responder(subject)]);
  await service.attach(await serviceConnection(testNatsUrl()));
  const requester = await client(testNatsUrl());
  await requester.request(subject, "", { timeout: 500 }).catch(() => undefined);
  expect((await requester.request(subject, "")).string()).toBe("bytes");
  expect(logged.filter(({ level }) => level === "error").map(({ message }) => message)).toEqual([
    "a request could not be answered",
  ]);
});

it("of two for one subject the older one answers", async () => {
  const { service } = testService({
    "public.first(bytea)": () => answer("first"),
    "public.second(bytea)": () => answer("second"),
  });
  const subject = `defects.${process.pid}.two`;
  await service.configure([
    responder(subject, "public.first(bytea)", 1),
    responder(subject, "public.second(bytea)", 2),
  ]);
  await service.attach(await serviceConnection(testNatsUrl()));
  const requester = await client(testNatsUrl());
  expect(await errorOf(requester, subject)).toBeUndefined();
  expect((await requester.request(subject, "")).string()).toBe("first");
});
