import { unchanged } from "./mutants.js";
import { World } from "./world.js";
const world = new World(Number(process.argv[3]), process.argv[2] as never, unchanged);
const w = world as any;
const log = (...a: unknown[]) => console.log(Math.round(world.schedule.now), ...a);
for (const f of ["kill", "start", "stall"]) { const old = w[f].bind(w); w[f] = (p: any) => { log("DO", f, p?.id, p?.startedAt, "queue", p?.queue.length, p?.queue[0] && p.clock.now() - p.queue[0].receivedAt); old(p); }; }
const add = world.counts.add.bind(world.counts);
world.counts.add = (n: string, by?: number) => { if (/taken|released|ended/.test(n)) log(n); 
 if (n === "leading") setTimeout(()=>0,0);
 add(n, by); };
const wl = setInterval(() => {}, 1e6); 
const bt = w.postgres.tableFor.bind(w.postgres);
let last: any;
const step = world.schedule.step.bind(world.schedule);
(world.schedule as any).step = (u: number) => { const r = step(u); const l = w.alive.filter((p: any) => p.protocol.epoch).map((p: any) => p.id).join(); if (l !== last) { log("leaders", l, "queue", w.alive.filter((p: any) => p.protocol.epoch).map((p: any) => [p.startedAt, p.queue.length, p.queue[0]?.id])); last = l; } return r; };
await world.run().catch((e) => log(String(e)));
clearInterval(wl);
