// Runs jobs through graphile-worker or pg-boss, with the fastest settings of their documentation.
//
//   node queue.js PEER add JOBS             makes the jobs
//   node queue.js PEER run JOBS RESULTS     runs them all; prints the seconds it took and the ms of CPU
//
// RESULTS is on or off: on stores 200 bytes a job in the table result.
'use strict';
const path = require('path');
const peers = require('module').createRequire(path.join(process.env.PEERS, 'package.json'));
const { Pool } = peers('pg');

const [peer, command, jobs, results] = process.argv.slice(2);
const JOBS = Number(jobs);
const VALUE = JSON.stringify({ r: 'x'.repeat(190) });
const STORE = {
  name: 'store',
  text: `INSERT INTO result SELECT u, now(), $2::jsonb FROM unnest($1::bigint[]) AS u
    ON CONFLICT (user_id) DO UPDATE SET computed_at = EXCLUDED.computed_at, value = EXCLUDED.value`,
};

const graphile = {
  // https://worker.graphile.org/docs/performance
  options: (pool) => ({
    pgPool: pool,
    preset: {
      worker: { concurrentJobs: 24, maxPoolSize: 25, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
    },
    logger: new (peers('graphile-worker').Logger)(() => () => {}),
  }),
  async add(pool) {
    const utils = await peers('graphile-worker').makeWorkerUtils(this.options(pool));
    await utils.migrate();
    await pool.query(
      `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
        SELECT json_populate_record(NULL::graphile_worker.job_spec, json_build_object('identifier', 'compute', 'payload', json_build_object('u', u)))
        FROM generate_series(1, $1) AS u))`, [JOBS]);
    await utils.release();
  },
  async run(pool) {
    let left = JOBS;
    let done;
    const finished = new Promise((resolve) => { done = resolve; });
    const compute = async (payload, helpers) => {
      if (results === 'on')
        await helpers.withPgClient((client) => client.query({ ...STORE, values: [[payload.u], VALUE] }));
      if (--left === 0) done();
    };
    const runner = await peers('graphile-worker').run({ ...this.options(pool), taskList: { compute }, noHandleSignals: true });
    await finished;
    await runner.stop(); // completes what it has put off
  },
};

const boss = {
  async start() {
    const PgBoss = peers('pg-boss');
    const b = new PgBoss({ host: process.env.PGHOST, database: process.env.PGDATABASE, user: process.env.PGUSER,
      max: 10, supervise: false, schedule: false });
    b.on('error', (error) => { throw error; });
    await b.start();
    return b;
  },
  async add() {
    const b = await this.start();
    await b.createQueue('compute');
    for (let u = 1; u <= JOBS; u += 10000) {
      const portion = [];
      for (let i = u; i < u + 10000 && i <= JOBS; i++) portion.push({ name: 'compute', data: { u: i } });
      await b.insert(portion);
    }
    await b.stop({ wait: true });
  },
  // fetch and complete in batches without a pause; work() polls twice a second at most
  async run(pool) {
    const b = await this.start();
    const loop = async () => {
      for (;;) {
        const batch = await b.fetch('compute', { batchSize: 1000 });
        if (batch.length === 0) return;
        if (results === 'on')
          await pool.query({ ...STORE, values: [batch.map((job) => job.data.u), VALUE] });
        await b.complete('compute', batch.map((job) => job.id));
      }
    };
    await Promise.all([loop(), loop(), loop(), loop()]);
    await b.stop({ graceful: false });
  },
};

(async () => {
  const pool = new Pool({ max: 25 });
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  const engine = { graphile, boss }[peer];
  const began = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  await engine[command](pool);
  const used = process.cpuUsage(cpu);
  if (command === 'run')
    console.log(Number(process.hrtime.bigint() - began) / 1e9, (used.user + used.system) / 1000);
  await pool.end();
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
