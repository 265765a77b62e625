//! What a player does with packets: it checks them, and says how it fares.

use std::time::Duration;

use ocellus::time::{Instant, RtpTimestamp};

use super::super::reports::picture_loss;
use super::super::strict::Packet;
use super::super::truth::{Checked, Rule, Truth, broken, hold};
use super::{Client, Kind, OWN_SSRC, PATIENCE, Stage};

impl Client {
    /// An interleaved packet.
    pub(super) fn frame(
        &mut self,
        now: Instant,
        truth: &Truth,
        channel: u8,
        bytes: &[u8],
    ) -> Checked<()> {
        let rtp_channel = match self.kind {
            Kind::Tcp(channel) => channel,
            Kind::Tunnel => 0,
            Kind::Udp | Kind::Multicast => return broken(Rule::Stranger, "interleaved, unasked"),
        };
        if channel == rtp_channel + 1 {
            let count = self.reports.receive(now, truth, bytes)?;
            // What is dropped behind a report was counted in it.
            let is_witness = self.habits.witness.is_some() && self.is_steady;
            let is_true = count == self.packets || (count > self.packets && !is_witness);
            return hold(is_true, Rule::Report, || {
                format!("{count} packets reported, {} came", self.packets)
            });
        }
        hold(channel == rtp_channel, Rule::Stranger, || format!("channel {channel}"))?;
        let may_come = matches!(self.stage, Stage::Playing | Stage::Pausing | Stage::Leaving);
        let packet = Packet::parse(bytes, truth)?;
        let seen = (packet.sequence, packet.timestamp);
        hold(may_come, Rule::RtpInfo, || format!("{} comes while {:?}", seen.0, self.stage))?;
        let promised = self.promised.take();
        hold(promised.is_none_or(|promised| promised == seen), Rule::RtpInfo, || {
            format!("{promised:?} promised, {seen:?} comes")
        })?;
        self.packets += 1;
        let unit = self.strict.packet(truth, bytes)?;
        self.media(now, truth, &packet)?;
        if let Some(unit) = unit {
            if unit.is_idr {
                self.last_idr = Some(now);
            }
            let is_missing = self.strict.has_gap && self.habits.witness.is_some() && self.is_steady;
            hold(!is_missing, Rule::Starved, || format!("units missing before {}", unit.serial))?;
        }
        Ok(())
    }

    /// A datagram.
    pub(crate) fn datagram(
        &mut self,
        now: Instant,
        truth: &Truth,
        is_rtcp: bool,
        bytes: &[u8],
    ) -> Checked<()> {
        if is_rtcp {
            // The tap judges what is reported: what came before a new session of the same ports may
            // come here later.
            self.reports.hear(now, bytes);
            return Ok(());
        }
        self.media(now, truth, &Packet::parse(bytes, truth)?)?;
        if self.reception.packet(truth, bytes)? {
            self.last_idr = Some(now);
        }
        let is_missing =
            self.reception.is_broken && self.habits.witness.is_some() && self.is_steady;
        hold(!is_missing, Rule::Starved, || "packets are missing".to_owned())?;
        if self.reception.is_broken && self.habits.complains && self.complain_at <= now {
            self.complain_at = now + Duration::from_millis(200);
            self.feedback(picture_loss(OWN_SSRC, truth.ssrc));
        }
        Ok(())
    }

    /// Any packet of media.
    fn media(&mut self, now: Instant, truth: &Truth, packet: &Packet<'_>) -> Checked<()> {
        let after = packet.timestamp.wrapping_sub(truth.timestamp(self.calm));
        if self.calm == Instant::ZERO || after < 1 << 31 {
            self.first_packet.get_or_insert(now);
        }
        self.patience = now + PATIENCE;
        if let Some(longest) = self.habits.witness.filter(|_| self.is_steady) {
            let ticks = truth.timestamp(now).wrapping_sub(packet.timestamp);
            let age = Duration::from_micros(
                u64::from(ticks) * 1_000 / u64::from(RtpTimestamp::HZ / 1_000),
            );
            hold(age <= longest, Rule::Starved, || format!("a picture came {age:?} late"))?;
        }
        Ok(())
    }

    pub(super) fn feedback(&mut self, packet: Vec<u8>) {
        match self.kind {
            Kind::Tcp(_) | Kind::Tunnel => {
                let channel = if let Kind::Tcp(channel) = self.kind { channel + 1 } else { 1 };
                let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
                self.out.extend([b'$', channel, len[0], len[1]]);
                self.out.extend(packet);
            }
            Kind::Udp => self.datagrams.push(packet),
            // They go to the group, where the camera does not hear them.
            Kind::Multicast => {}
        }
    }
}
