/**
 * Calls `Look` over NATS, without a time limit, and never gets an answer: for tests that kill it.
 *
 *     nats-caller.ts NATS-URL SUBJECT-PREFIX
 */
import { createClient } from "@connectrpc/connect";
import { connect } from "@nats-io/transport-node";
import { createNatsTransport } from "../../../src/protobuf/connect/index.js";
import { Warehouse } from "../generated/acme/warehouse/v1/warehouse_pb.js";

const [servers, subjectPrefix] = process.argv.slice(2) as [string, string];
const connection = await connect({ servers });
await createClient(Warehouse, createNatsTransport(connection, { subjectPrefix })).look({}, { timeoutMs: 0 });
