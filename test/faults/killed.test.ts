/**
 * A kill (SIGKILL) of each kind of process but `hawser serve` (`serve-killed.slow.test.ts`) under a light load. The files `*killed.slow.test.ts` repeat it at random under a heavy
 * load.
 */
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { longTest } from "../support/limits.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";
import { endSessionsSql } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";

// These two side by side: they mostly wait.
it.concurrent(
  "a listener, a sender that stores, and all sessions of Postgres are killed: nothing confirmed is lost",
  longTest,
  async () => {
    await using database = await testDatabase({ nats: false });
    await using mesh = await Mesh.start({ url: database.url, senders: ["a"], listeners: ["x"] });
    const [a, x] = [mesh.member("a"), mesh.member("x")];
    await mesh.current(a).call("hurry", 150);
    await mesh.progress(x, 40);
    await mesh.recovered(await mesh.replace(x));

    // With nobody to take them, all are stored; its name is free for the next process all the same.
    await mesh.current(x).crash();
    await mesh.current(a).call("hurry", 300);
    await eventually(
      "it stores",
      () => mesh.confirmed(a, x).filter(({ outcome }) => outcome === "stored").length > 100,
    );
    const killed = await mesh.replace(a);
    await eventually("the next one stores", () => mesh.confirmed(a, x).some(({ at }) => at > killed));
    await mesh.launch(x);
    await mesh.recovered(microseconds());

    await onServer(database.url, endSessionsSql);
    await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
    expect(found.stored).toBeGreaterThan(100);
    expect(found.delivered).toBeGreaterThan(100);
  },
);

slowIt.concurrent(
  "nats-server is killed: calls fail clearly, and calls and subscriptions work when it is back",
  async () => {
    await using nats = await startNatsServer();
    await using gateway = await testGateway({ natsUrl: nats.url, tuning: { natsWaitMs: 200 } });
    await gateway.client.query(`
    CREATE TABLE got (payload text);
    CREATE FUNCTION keep(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got VALUES (convert_from(payload, 'UTF8'))$$;
    SELECT nats_subscribe('killed', 'keep')`);
    const has = async (text: string): Promise<boolean> => {
      await gateway.client.query("SELECT nats_publish_text('killed', $1)", [text]).catch(() => undefined);
      return await gateway.value("SELECT EXISTS (SELECT FROM got WHERE payload = $1)", [text]);
    };
    await eventually("the subscription runs", () => has("before"));
    await nats.kill();
    expect((await gateway.errorOf("SELECT nats_publish_text('killed', 'meanwhile')")).code).toMatch(
      /^(08003|NA00[124])$/,
    );
    await nats.restart();
    await eventually("the subscription runs again", () => has("after"));
    await using independent = await connect({ servers: nats.url }).then((client) =>
      Object.assign(client, { [Symbol.asyncDispose]: () => client.close() }),
    );
    independent.publish("killed", "from elsewhere");
    await eventually("it hears others, too", () =>
      gateway.value<boolean>("SELECT EXISTS (SELECT FROM got WHERE payload = 'from elsewhere')"),
    );
  },
);
