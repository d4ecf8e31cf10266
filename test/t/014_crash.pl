# A handler whose code crashes the server: its users run one by one after the first time, and after the
# second it is disabled, with its error in the status.  What merely dies with the server is not charged.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "restart_after_crash = on\n");
my $handler = q{FROM eros.handler WHERE name = 'crashes'};

# Counts the crashes of the server so far.
sub server_crashes
{
	my @crashes = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	return scalar @crashes;
}

# Waits until the server has crashed so often, and is back.
sub crashed
{
	my ($times, $name) = @_;
	my $timeout = $PostgreSQL::Test::Utils::timeout_default * 10;

	while (server_crashes() < $times && $timeout-- > 0)
	{
		select undef, undef, undef, 0.1;
	}
	is(server_crashes(), $times, $name);
	return polls_to($node, 'postgres', running(), 'it is back, and EROS runs');
}

create_eros($node, 'postgres');
soon_idle($node, 'postgres', 10);
gated_handler($node, 'postgres');
my $module = test_module();
my $crashed = $node->basedir . '/crashed';

# a handler that crashes for the users in app.victim, once or always
$node->safe_psql(
	'postgres', qq{
	CREATE FUNCTION app.crash() RETURNS void LANGUAGE c AS '$module', 'eros_test_crash';
	CREATE TABLE app.victim (user_id bigint);
	CREATE TABLE app.batch (users integer, at timestamptz DEFAULT clock_timestamp());
	CREATE TABLE app.armed AS SELECT false AS armed, false AS once;
	CREATE FUNCTION app.shall_crash(user_ids bigint[]) RETURNS boolean LANGUAGE plpgsql AS \$\$
	DECLARE
		armed record;
	BEGIN
		SELECT * INTO armed FROM app.armed;
		IF NOT armed.armed OR NOT EXISTS (SELECT FROM app.victim v WHERE v.user_id = ANY (user_ids)) THEN
			RETURN false;
		END IF;
		-- a file survives where a row is rolled back
		IF (pg_stat_file('$crashed', true)).size IS NOT NULL THEN
			RETURN NOT armed.once;
		END IF;
		COPY (SELECT 1) TO '$crashed';
		RETURN true;
	END \$\$;
	CREATE FUNCTION app.crashes(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS \$\$
	BEGIN
		WHILE NOT (SELECT g.open FROM app.gate g) LOOP
			PERFORM pg_sleep(0.02);
		END LOOP;
		IF app.shall_crash(user_ids) THEN
			PERFORM app.crash();
		END IF;
		INSERT INTO app.batch (users) VALUES (cardinality(user_ids));
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END \$\$;
	SELECT eros.add_handler('crashes', 'app.crashes', phase => 1);});
my $results = q{SELECT count(*) FROM eros.get_many('crashes', ARRAY(SELECT generate_series(1::bigint, 100)))};

# Has ten users be pending, so that they are one batch; the gate is closed.
sub batch_of_ten
{
	my ($first) = @_;

	open_gate($node, 'postgres', 0);
	$node->safe_psql('postgres', "SELECT eros_touch(ARRAY(SELECT generate_series($first\::bigint, $first + 9)))");
	polls_to($node, 'postgres', q{SELECT count(*) FROM eros.job JOIN eros.handler USING (handler_id) WHERE name = 'crashes'}, 'ten jobs are pending', 10);
	on_disk($node, 'postgres');
	return;
}

# an ordinary day: the cost is known, a batch takes ten
$node->safe_psql('postgres', q{SELECT eros.disable_handler('gated')});
for my $n (0 .. 2)
{
	batch_of_ten(1 + 10 * $n);
	open_gate($node, 'postgres', 1);
	polls_to($node, 'postgres', $results, 'they have their results', 10 + 10 * $n);
}

# one crash: called again, one by one, and not disabled
batch_of_ten(31);
$node->safe_psql('postgres', 'INSERT INTO app.victim VALUES (35); UPDATE app.armed SET armed = true, once = true');
on_disk($node, 'postgres');
open_gate($node, 'postgres', 1);
crashed(1, 'the handler crashes the server');
is(value($node, 'postgres', "SELECT crashes $handler"), 1, 'that is charged to it');
polls_to($node, 'postgres', $results, 'it is called again, and the users have their results', 40);
is(value($node, 'postgres', "SELECT enabled AND error IS NULL $handler"), 't', 'it is not disabled');
is(value($node, 'postgres', q{SELECT max(users) FROM (SELECT users FROM app.batch ORDER BY at DESC LIMIT 10) b}), 1, 'its users were called one by one');
like(value($node, 'postgres', q{SELECT process, handler, sqlstate, message FROM eros.status_error}),
	qr/^worker\|crashes\|57P02\|handler "crashes" crashed the server in a call for (one user|\d+ users)$/m, 'eros.status_error tells');
is(value($node, 'postgres', 'SELECT status FROM eros.status'), 'ok', 'all is well again');
batch_of_ten(41);
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', $results, 'ten more are served', 50);
cmp_ok(value($node, 'postgres', q{SELECT max(users) FROM (SELECT users FROM app.batch ORDER BY at DESC LIMIT 3) b}), '>', 1, 'in larger batches again');

# for one user only: after the second crash his job has failed, the handler is disabled, all others are served
$node->safe_psql('postgres', q{SELECT eros.enable_handler('crashes')});
is(value($node, 'postgres', "SELECT crashes $handler"), 0, 'eros.enable_handler() begins anew');
batch_of_ten(51);
$node->safe_psql('postgres', 'DELETE FROM app.victim; INSERT INTO app.victim VALUES (56); UPDATE app.armed SET once = false');
on_disk($node, 'postgres');
open_gate($node, 'postgres', 1);
crashed(3, 'a handler that crashes for one user crashes the server twice');
is(value($node, 'postgres', "SELECT crashes, enabled $handler"), '2|f', 'and is disabled then');
is(value($node, 'postgres', q{SELECT error FROM eros.status_handler WHERE handler = 'crashes'}),
	'handler "crashes" crashed the server in a call for one user', 'its error tells');
like(value($node, 'postgres', 'SELECT status FROM eros.status'), qr/1 handlers cannot be called/, 'the status tells');
is( value($node, 'postgres', q{SELECT eros.user_bigint(user_id), status, last_error FROM eros.job JOIN eros.handler USING (handler_id) WHERE name = 'crashes' AND status = 'failed'}),
	'56|failed|handler "crashes" crashed the server in a call for one user', 'the job of that user has failed');
my $served = value($node, 'postgres', $results);
cmp_ok($served, '<', 60, 'some are not served yet');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.job JOIN eros.handler USING (handler_id) WHERE name = 'crashes'}), 60 - $served, 'their jobs are there');
is(server_crashes(), 3, 'there is no loop of crashes');

# the others go on once it is enabled
$node->safe_psql('postgres', q{SELECT eros.enable_handler('crashes')});
polls_to($node, 'postgres', $results, 'when it is enabled again, all others are served', 59);
is(server_crashes(), 3, 'without a crash');
$node->safe_psql('postgres', q{UPDATE app.armed SET armed = false; SELECT eros.retry('crashes')});
polls_to($node, 'postgres', $results, 'and he, too, once it is mended', 60);

# what dies with the server is not charged: another process's crash, shutdowns, a kill of everything
$node->safe_psql('postgres', q{SELECT eros.enable_handler('crashes')});
batch_of_ten(61);
my $computing = q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'computing' AND handler = 'crashes'};
my $crashes = server_crashes();
for my $victim ('scheduler_pid', 'launcher_pid')
{
	polls_to($node, 'postgres', $computing, 'it is being called');
	PostgreSQL::Test::Utils::system_log('pg_ctl', 'kill', 'KILL', value($node, 'postgres', "SELECT $victim FROM eros.status"));
	crashed(++$crashes, "a crash of another process: $victim");
	polls_to($node, 'postgres', $computing, 'it is called again');
	is(value($node, 'postgres', "SELECT crashes $handler"), 0, 'that is not charged');
}
for my $mode ('fast', 'smart', 'immediate')
{
	polls_to($node, 'postgres', $computing, 'it is being called');
	on_disk($node, 'postgres');
	$node->stop($mode);
	$node->start;
	polls_to($node, 'postgres', running(), "EROS runs after a shutdown, $mode");
	is(value($node, 'postgres', "SELECT crashes $handler"), 0, "which is not charged");
}
polls_to($node, 'postgres', $computing, 'it is being called');
my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my @pids = ($postmaster, map { /(\d+)/ } `ps -o pid= --ppid $postmaster`);
kill 'STOP', $postmaster;
kill 'KILL', grep { $_ != $postmaster } @pids;
$node->kill9;
my $tries = $PostgreSQL::Test::Utils::timeout_default * 10;
while ($tries-- > 0 && grep { kill 0, $_ } @pids)
{
	select undef, undef, undef, 0.1;
}
$node->start;
polls_to($node, 'postgres', running(), 'EROS runs after a kill of the whole server');
is(value($node, 'postgres', "SELECT crashes $handler"), 0, 'which is not charged either');
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', $results, 'and all are served in the end', 70);
polls_to($node, 'postgres', 'SELECT status FROM eros.status', 'all is well', 'ok');
$node->stop;
done_testing();
