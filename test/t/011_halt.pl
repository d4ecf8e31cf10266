# A returning user stops the work on him at once, whatever the worker does at that moment.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "eros.retry_delay = '1 hour'\neros.quantum = '1 s'\n");

create_eros($node, 'postgres');
$node->safe_psql(
	'postgres', sprintf(q{
	CREATE SCHEMA app;
	CREATE TABLE app.mode AS SELECT 'quick' AS mode;
	CREATE TABLE app.locked ();
	CREATE TABLE app.pinned WITH (autovacuum_enabled = off) AS SELECT 1 AS x;
	CREATE FUNCTION app.burn(ms double precision) RETURNS void
		LANGUAGE c STRICT AS '%s', 'eros_test_burn';
	CREATE FUNCTION app.loop() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			NULL;
		END LOOP;
	END $$;
	CREATE FUNCTION app.handler(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$
	DECLARE
		mode text := (SELECT m.mode FROM app.mode m);
	BEGIN
		IF mode = 'plpgsql' THEN
			PERFORM app.loop();
		ELSIF mode = 'sql' THEN
			PERFORM count(*) FROM generate_series(1, 1e6) a, generate_series(1, 1e6) b WHERE a = -b;
		ELSIF mode = 'sleep' THEN
			PERFORM pg_sleep(3600);
		ELSIF mode = 'lock' THEN
			LOCK TABLE app.locked;
			PERFORM app.loop();
		ELSIF mode = 'pin' THEN
			PERFORM count(*) FROM app.pinned p, generate_series(1, p.x + 1000000000) g WHERE g = -1;
		ELSIF mode = 'catch' THEN
			LOOP
				BEGIN
					PERFORM app.loop();
				EXCEPTION WHEN query_canceled THEN
					NULL;
				END;
			END LOOP;
		ELSIF mode = 'c' THEN
			PERFORM app.burn(6000);
		END IF;
		RETURN QUERY SELECT u, to_jsonb(mode) FROM unnest(user_ids) u;
	END $$;
	UPDATE eros.phase SET cpu_percent = 95, batch_size = 15;
	SELECT eros.add_handler('handler', 'app.handler', phase => 1, timeout => '2 hours');
	SELECT eros.freeze_clock()}, test_module()));

# Has the handler do something else from its next call on.
sub mode
{
	my ($mode) = @_;

	$node->safe_psql('postgres', "UPDATE app.mode SET mode = '$mode'");
	return;
}

# Has users 1, 2 and 3 become idle, and waits until the worker calls the handler for them.
sub called_for_three
{
	my ($mode, $state) = @_;

	$state //= q{activity IN ('computing', 'pausing in call')};
	mode($mode);
	$node->safe_psql(
		'postgres', q{
		SELECT eros.invalidate('handler', u) FROM generate_series(1, 3) u;
		SELECT eros_touch(u) FROM generate_series(1, 3) u;
		SELECT eros.advance_clock('15 minutes')});
	polls_to($node, 'postgres',
		"SELECT count(*) = 1 FROM eros.status_worker WHERE batch_users >= 3 AND $state",
		"$mode: the handler is called for three users");
	return;
}

# What follows from a halt: the user has no job and no result, the others have their results.
sub user_1_is_left_alone
{
	my ($mode) = @_;

	mode('quick');
	polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, "$mode: no job is left");
	is(value($node, 'postgres', q{
			SELECT string_agg(coalesce(eros.get('handler', u) #>> '{}', '-'), ' ' ORDER BY u)
			FROM generate_series(1, 3) u}),
		'- quick quick', "$mode: the others have run again, he has not");
	is(value($node, 'postgres', q{SELECT batches_failed FROM eros.status_handler}),
		0, "$mode: nobody has failed");
	return;
}

my $halts = 0;

# wherever it is, the worker stops
my $locker = open_session($node, 'postgres');
in_session($locker, 'BEGIN; LOCK TABLE app.locked');
for my $mode ('plpgsql', 'sql', 'sleep', 'lock')
{
	called_for_three($mode);
	if ($mode eq 'lock')
	{
		polls_to($node, 'postgres',
			q{SELECT count(*) = 1 FROM pg_stat_activity
			  WHERE backend_type = 'eros worker' AND wait_event_type = 'Lock'},
			'lock: the worker waits for it');
	}
	mode('quick');
	$node->safe_psql('postgres', 'SELECT eros_touch(1)');
	polls_to($node, 'postgres', 'SELECT halts = ' . ++$halts . ' FROM eros.status_halt',
		"$mode: the touch halts the batch");
	user_1_is_left_alone($mode);
}
close_session($locker);

# in a pause inside of the call
$node->safe_psql('postgres', 'UPDATE eros.phase SET cpu_percent = 1');
called_for_three('plpgsql', q{activity = 'pausing in call'});
mode('quick');
$node->safe_psql('postgres', 'SELECT eros_touch(1); UPDATE eros.phase SET cpu_percent = 95');
polls_to($node, 'postgres', 'SELECT halts = ' . ++$halts . ' FROM eros.status_halt',
	'pausing: the touch halts the batch');
user_1_is_left_alone('pausing');

# a handler that catches the cancel and goes on is terminated
my $forced = value($node, 'postgres', 'SELECT forced FROM eros.status_halt');
my $used = q{SELECT cpu_used_ms FROM eros.status_phase WHERE phase = 1};
my $slow = value($node, 'postgres', 'SELECT slow FROM eros.halt_info()');
my $used_before = value($node, 'postgres', $used);
called_for_three('catch');
my $pid = value($node, 'postgres', 'SELECT pid FROM eros.status_worker');
mode('quick');
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
polls_to($node, 'postgres', "SELECT forced = $forced + 1 FROM eros.status_halt",
	'catch: the worker is terminated, and that is shown');
polls_to($node, 'postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'catch: its process ends');
user_1_is_left_alone('catch');
is(value($node, 'postgres', 'SELECT halts, max_ms > 500 FROM eros.status_halt'), ++$halts . '|t', 'catch: that halt is among the latencies');
is(value($node, 'postgres', q{SELECT reason, handler FROM eros.status_halt_recent ORDER BY halted_at DESC LIMIT 1}), 'return|handler', 'and the last of them');
cmp_ok(value($node, 'postgres', 'SELECT slow FROM eros.halt_info()'), '>', $slow, 'as a slow one');
cmp_ok(value($node, 'postgres', $used), '>=', $used_before + 400, 'the phase is charged with what the call has used');

# code in C that never looks for interrupts goes on to its end, but no longer
$forced = value($node, 'postgres', 'SELECT forced FROM eros.status_halt');
called_for_three('c');
$pid = value($node, 'postgres', 'SELECT pid FROM eros.status_worker');
mode('quick');
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
polls_to($node, 'postgres', "SELECT forced = $forced + 1 FROM eros.status_halt",
	'c: the worker is terminated when it can be, and that is shown');
polls_to($node, 'postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'c: its process ends');
user_1_is_left_alone('c');
is(value($node, 'postgres', 'SELECT halts FROM eros.status_halt'), ++$halts, 'c: that halt is among the latencies');

# a touch of somebody else halts nobody
called_for_three('sleep');
$halts = value($node, 'postgres', 'SELECT halts FROM eros.status');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(4, 100) u');
is(value($node, 'postgres', 'SELECT batch_users FROM eros.status_worker'), 3, 'a touch of another user halts nobody');
is(value($node, 'postgres', 'SELECT halts FROM eros.status'), $halts, 'nor is one counted');

# eros.pause() halts what runs and keeps it from running
mode('quick');
$node->safe_psql('postgres', 'SELECT eros.pause()');
polls_to($node, 'postgres', "SELECT halts > $halts FROM eros.status", 'pause: the batch is halted');
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'pause: the worker leaves');
like(value($node, 'postgres', 'SELECT status FROM eros.status'), qr/^paused/, 'pause: the status says so');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.job WHERE status = 'pending' AND attempts = 0}),
	3, 'pause: the jobs wait');
$node->safe_psql('postgres', 'SELECT eros.resume()');
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'resume: they are run');

# who waits for a lock that a batch holds gets it, and the batch runs later
my $gave_way;
called_for_three('lock');
mode('quick');
is(value($node, 'postgres', 'BEGIN; LOCK TABLE app.locked; COMMIT; SELECT 1'), 1,
	'a session gets the lock that a batch held');
polls_to($node, 'postgres', 'SELECT gave_way >= 1 FROM eros.status', 'the worker has given way');
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'and the batch has run later');

# who would get a lock but for the batch, which waits ahead of him, gets it
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT FROM app.locked');
called_for_three('lock', q{pid IN (SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'app.locked'::regclass)});
mode('quick');
$gave_way = value($node, 'postgres', 'SELECT gave_way FROM eros.status');
is(value($node, 'postgres', 'SELECT count(*) FROM app.locked'), 0, 'a session reads a table that a batch waits to lock');
is(value($node, 'postgres', 'SELECT gave_way FROM eros.status'), $gave_way + 1, 'the worker has given way');
$reader->query_safe('COMMIT');
$reader->quit;
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'and the batch has run later');

# who waits for a buffer pin of a batch gets it, too
called_for_three('pin');
mode('quick');
$gave_way = value($node, 'postgres', 'SELECT gave_way FROM eros.status');
$node->safe_psql('postgres', 'VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) app.pinned');
is(value($node, 'postgres', 'SELECT gave_way FROM eros.status'), $gave_way + 1,
	'the worker has given way to VACUUM (FREEZE), which needs the page for itself');
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'and the batch has run later');

# an administrator's cancel that comes late, in the pause after a batch, cancels nothing
$node->safe_psql(
	'postgres', q{
	UPDATE eros.phase SET cpu_percent = 1, batch_size = 1;
	SELECT eros.invalidate('handler', u), eros_touch(u) FROM generate_series(1, 1000) u;
	SELECT eros.advance_clock('15 minutes')});
polls_to($node, 'postgres', q{SELECT count(*) = 1 FROM eros.status_worker WHERE activity = 'pausing'},
	'the worker pauses between batches');
$pid = value($node, 'postgres', 'SELECT pid FROM eros.status_worker');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");

# a halt comes too late there as well; the change of the share is in force at once
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 1000) u');
$node->safe_psql(
	'postgres', q{
	UPDATE eros.phase SET cpu_percent = 95, batch_size = 15;
	SELECT eros.advance_clock('15 minutes')});
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'with a larger share all is done soon');
is(value($node, 'postgres', 'SELECT pid FROM eros.status_worker'), $pid,
	'by the same worker, which the cancel has not ended');
is(value($node, 'postgres', 'SELECT batches_failed FROM eros.status_handler'), 0, 'nor has it failed a batch');

# halts that come late hit no other batch: thousands of batches and returns at random
$node->safe_psql(
	'postgres', q{
	UPDATE eros.phase SET batch_size = 3;
	CREATE PROCEDURE app.come_and_go(rounds integer) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1..rounds LOOP
			PERFORM eros_touch(u) FROM generate_series(1, 30) u WHERE random() < 0.3;
			PERFORM eros.advance_clock('4 minutes');
			COMMIT;
			PERFORM eros.sweep();
			COMMIT;
		END LOOP;
	END $$;
	CALL app.come_and_go(2000)});
is(value($node, 'postgres', 'SELECT batches_failed FROM eros.status_handler'), 0, 'a late halt fails no batch');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 hour')});
polls_to($node, 'postgres', q{SELECT count(*) = 0 FROM eros.job}, 'in the end all is done');
is(value($node, 'postgres', q{
		SELECT count(*) FROM generate_series(1, 30) u WHERE eros.get('handler', u) IS NULL}),
	0, 'and everybody has his result');

done_testing();
