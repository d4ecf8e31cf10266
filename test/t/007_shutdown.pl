# A shutdown waits for nothing that EROS does: a long call, a pause between batches.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main');

create_eros($node, 'postgres');
sleeping_handler($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION burns(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + interval '200 ms';
	BEGIN
		WHILE clock_timestamp() < until LOOP
		END LOOP;
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	SELECT eros.add_handler('burns', 'burns', phase => 1)});

# Has exactly one of the handlers be enabled.
sub only
{
	my ($handler) = @_;
	my $other = $handler eq 'burns' ? 'sleeps' : 'burns';

	$node->safe_psql('postgres', "SELECT eros.disable_handler('$other'), eros.enable_handler('$handler')");
	return;
}

# in the middle of a call that takes an hour
soon_idle($node, 'postgres');
only('sleeps');
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
for my $mode ('smart', 'fast', 'immediate')
{
	polls_to($node, 'postgres', computing(), 'a worker is in the middle of a long call');
	on_disk($node, 'postgres');
	ok($node->stop($mode, fail_ok => 1), "a $mode shutdown ends it");
	$node->start;
}
polls_to($node, 'postgres', computing(), 'it is called again after each');

# in a pause of minutes
$node->safe_psql('postgres', 'UPDATE eros.phase SET cpu_percent = 0.1, batch_size = 1 WHERE phase = 1');
only('burns');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 20) u');
for my $mode ('smart', 'fast', 'immediate')
{
	polls_to($node, 'postgres', q{SELECT count(*) > 0 FROM eros.status_worker WHERE activity = 'pausing'},
		'a worker pauses between two batches');
	on_disk($node, 'postgres');
	ok($node->stop($mode, fail_ok => 1), "a $mode shutdown ends it");
	$node->start;
}
polls_to($node, 'postgres', running(), 'EROS starts again');

# at rest
reload_with($node, 'eros.enabled' => 'off');
ok($node->stop('smart', fail_ok => 1), 'a smart shutdown while EROS is switched off');
$node->start;
polls_to($node, 'postgres', started(), 'its processes are there again');
is(value($node, 'postgres', 'SELECT status FROM eros.status'), 'switched off: set eros.enabled = on, and reload the configuration', 'and says that it is off');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
done_testing();
