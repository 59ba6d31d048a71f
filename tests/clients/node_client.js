// node-postgres and pg-cursor: one conversation, printed; run directly and through pgproxy and compared.
const { Client } = require('pg');
const Cursor = require('pg-cursor');

const shown = (e) => ({ code: e.code, message: e.message, severity: e.severity, position: e.position, detail: e.detail });

async function attempt(label, work) {
  try {
    console.log(label, JSON.stringify(await work()));
  } catch (e) {
    console.log(label, 'failed', JSON.stringify(shown(e)));
  }
}

(async () => {
  const client = new Client({ connectionString: process.argv[2] });
  client.on('notice', (n) => console.log('notice', n.code, n.message));
  await client.connect();
  const heard = new Promise((resolve) => client.on('notification', (n) => resolve([n.channel, n.payload])));
  const rows = (sql, values) => async () => {
    const result = await client.query(sql, values);
    return Array.isArray(result)
      ? result.map((r) => [r.command, r.rowCount, r.rows])
      : [result.command, result.rowCount, result.rows, result.fields.map((f) => [f.name, f.dataTypeID])];
  };
  await attempt('simple', rows("select 1 as a, 'é' as b, null as c, now() > '2020-01-01' as d"));
  await attempt('several', rows('select 1 as a; select 2 as b'));
  await attempt('parameters', rows('select $1::int + 1 as n, $2::text[] as t, $3::jsonb as j', [41, ['x', 'y'], { k: 1 }]));
  const named = { name: 'named', text: 'select $1::int * 2 as n', values: [4] };
  await attempt('prepared', rows(named));
  await attempt('prepared again', rows({ ...named, values: [5] }));
  await attempt('syntax error', rows('selct 1'));
  await attempt('division', rows('select 1/$1::int', [0]));
  await attempt('create', rows('create table node_client (id int primary key, name text)'));
  await attempt('insert', rows('insert into node_client values ($1, $2), (2, null) returning *', [1, 'one']));
  await attempt('duplicate', rows('insert into node_client values (1)'));
  await attempt('begin', rows('begin'));
  await attempt('failing', rows('select nothing_there'));
  await attempt('in failed transaction', rows('select 1'));
  await attempt('rollback', rows('rollback'));
  await attempt('cursor', async () => {
    const cursor = client.query(new Cursor('select generate_series(1, 7) as n'));
    const parts = [await cursor.read(3), await cursor.read(3), await cursor.read(3)];
    await cursor.close();
    return parts;
  });
  await attempt('queued', () => Promise.all([1, 2, 3].map((n) => client.query('select $1::int as n', [n]).then((r) => r.rows))));
  await attempt('listen', rows('listen node_news'));
  await attempt('notify', rows("notify node_news, 'hello'"));
  console.log('heard', JSON.stringify(await heard));
  await attempt('drop', rows('drop table node_client'));
  await client.end();
})();
