//! Turns a card's first sector into its partitions, and back with the data partition added.
//!
//! The master boot record's table: four entries of 16 bytes at 446, `55 aa` at the end. Sectors are
//! of 512 bytes.
//!
//!     0      1      4     5      8            12           16
//!     | boot | CHS  | type | CHS  | first (le)  | count (le) |
//!
//! One sector holds all of it, and a card writes a sector whole: a power cut leaves the old table or
//! the new one.

use crate::sys::block::SECTOR_LEN;

/// A partition table that was read from a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table([u8; SECTOR_LEN]);

/// What the second entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// The entry is empty, as in the image.
    Absent,
    /// Its place is reserved; what is in it is not complete.
    Reserved,
    /// It was formatted, and is never formatted again.
    Complete,
    /// Somebody else's.
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the card has no room behind the boot partition")]
    NoRoom,
}

impl Table {
    /// `None` when the sector ends without the signature.
    pub(super) fn parse(sector: [u8; SECTOR_LEN]) -> Option<Self> {
        sector.ends_with(&SIGNATURE).then_some(Self(sector))
    }

    pub(super) const fn sector(&self) -> &[u8; SECTOR_LEN] {
        &self.0
    }

    /// First sector of the first partition.
    pub(super) fn boot_first(&self) -> u64 {
        u64::from(self.number(BOOT, FIRST))
    }

    pub(super) fn data(&self) -> Data {
        let entry = self.entry(DATA);
        match entry.get(TYPE) {
            _ if entry.iter().all(|&byte| byte == 0) => Data::Absent,
            Some(&RESERVED) => Data::Reserved,
            Some(&LINUX) => Data::Complete,
            _ => Data::Foreign,
        }
    }

    /// Reserves everything behind the boot partition.
    ///
    /// # Errors
    ///
    /// `NoRoom` when less than [`DATA_SECTORS_MIN`] are left.
    pub(super) fn reserve_data(&mut self, card_sectors: u64) -> Result<(), Error> {
        let boot_end = self.boot_first() + u64::from(self.number(BOOT, COUNT));
        let first = boot_end.next_multiple_of(ALIGNMENT);
        // The table counts to 2 TiB.
        let end = card_sectors.min(u64::from(u32::MAX)) / ALIGNMENT * ALIGNMENT;
        let count = end.checked_sub(first).filter(|&count| count >= DATA_SECTORS_MIN);
        let count = count.and_then(|count| u32::try_from(count).ok()).ok_or(Error::NoRoom)?;
        let first = u32::try_from(first).map_err(|_| Error::NoRoom)?;
        let [f0, f1, f2, f3] = first.to_le_bytes();
        let [c0, c1, c2, c3] = count.to_le_bytes();
        let [h, s, c] = NO_CHS;
        self.replace([0, h, s, c, RESERVED, h, s, c, f0, f1, f2, f3, c0, c1, c2, c3]);
        Ok(())
    }

    /// Says that the reserved partition is formatted.
    pub(super) fn complete_data(&mut self) {
        let mut entry = self.entry(DATA);
        if let Some(kind) = entry.get_mut(TYPE) {
            *kind = LINUX;
        }
        self.replace(entry);
    }

    fn entry(&self, index: usize) -> [u8; ENTRY_LEN] {
        let bytes = self.0.get(TABLE + index * ENTRY_LEN..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or_default()
    }

    fn number(&self, index: usize, offset: usize) -> u32 {
        let entry = self.entry(index);
        let bytes = entry.get(offset..).and_then(|rest| rest.first_chunk());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    fn replace(&mut self, entry: [u8; ENTRY_LEN]) {
        let place = self.0.get_mut(TABLE + DATA * ENTRY_LEN..);
        if let Some(place) = place.and_then(|rest| rest.first_chunk_mut()) {
            *place = entry;
        }
    }
}

/// The label in the first sector of a FAT32 file system, if it is one; padded with spaces.
pub(super) fn fat32_label(sector: &[u8; SECTOR_LEN]) -> Option<&[u8; 11]> {
    let is_fat32 = sector.ends_with(&SIGNATURE) && sector.get(82..90) == Some(b"FAT32   ");
    is_fat32.then(|| sector.get(71..)?.first_chunk()).flatten()
}

/// 16 MiB: the journal, 4,096 inodes, and room for configurations.
pub(super) const DATA_SECTORS_MIN: u64 = 16 * 2048;

/// 4 MiB, the largest erase block of common cards.
const ALIGNMENT: u64 = 8192;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const TABLE: usize = 446;
const ENTRY_LEN: usize = 16;
const BOOT: usize = 0;
const DATA: usize = 1;
const TYPE: usize = 4;
const FIRST: usize = 8;
const COUNT: usize = 12;
/// "Non-FS data": nobody mounts or repairs it.
const RESERVED: u8 = 0xda;
const LINUX: u8 = 0x83;
/// Beyond what cylinders, heads and sectors can say.
const NO_CHS: [u8; 3] = [0xfe, 0xff, 0xff];

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a failing test")]
mod tests {
    use super::*;

    /// The image's own table: FAT from 4 to 60 MiB.
    fn fresh() -> Table {
        let mut sector = [0; SECTOR_LEN];
        sector[446..450].copy_from_slice(&[0x80, 1, 2, 3]);
        sector[450] = 0x0c;
        sector[454..458].copy_from_slice(&8192_u32.to_le_bytes());
        sector[458..462].copy_from_slice(&114_688_u32.to_le_bytes());
        sector[510..].copy_from_slice(&SIGNATURE);
        Table::parse(sector).unwrap()
    }

    #[test]
    fn the_data_partition_takes_the_rest_of_the_card() {
        const MIB: u64 = 2048;
        let cases = [(128 * MIB, 68 * MIB), (16384 * MIB, 16324 * MIB), (127 * MIB + 7, 64 * MIB)];
        for (card, count) in cases {
            let mut table = fresh();
            assert_eq!(table.data(), Data::Absent);
            table.reserve_data(card).unwrap();
            assert_eq!(table.data(), Data::Reserved);
            assert_eq!(u64::from(table.number(DATA, FIRST)), 60 * MIB);
            assert_eq!(u64::from(table.number(DATA, COUNT)), count, "{card}");
            table.complete_data();
            assert_eq!(table.data(), Data::Complete);
            assert_eq!(table.sector()[..462], fresh().sector()[..462], "the boot partition stays");
        }
    }

    #[test]
    fn no_card_is_too_small_or_too_large_to_be_asked() {
        for card in [0, 1, 122_880, 122_880 + DATA_SECTORS_MIN - 1] {
            let mut table = fresh();
            assert_eq!(table.reserve_data(card), Err(Error::NoRoom), "{card}");
            assert_eq!(table, fresh());
        }
        for card in [122_880 + DATA_SECTORS_MIN, u64::from(u32::MAX) + 1, u64::MAX] {
            let mut table = fresh();
            table.reserve_data(card).unwrap();
            let end = u64::from(table.number(DATA, FIRST)) + u64::from(table.number(DATA, COUNT));
            assert!(end <= card && end <= u64::from(u32::MAX), "{card}");
        }
    }

    #[test]
    fn what_another_system_made_is_left_alone() {
        for kind in [0x00, 0x07, 0x0c, 0x82, 0xff] {
            let mut sector = *fresh().sector();
            sector[462 + 4] = kind;
            sector[462 + 8] = 1;
            assert_eq!(Table::parse(sector).unwrap().data(), Data::Foreign, "{kind:#04x}");
        }
        assert_eq!(Table::parse([0; SECTOR_LEN]), None);
    }

    #[test]
    fn a_label_is_read_from_fat32_only() {
        let mut sector = [0; SECTOR_LEN];
        sector[71..82].copy_from_slice(b"OCELLUS    ");
        sector[82..90].copy_from_slice(b"FAT32   ");
        assert_eq!(fat32_label(&sector), None);
        sector[510..].copy_from_slice(&SIGNATURE);
        assert_eq!(fat32_label(&sector), Some(b"OCELLUS    "));
        sector[82..90].copy_from_slice(b"FAT16   ");
        assert_eq!(fat32_label(&sector), None);
    }
}
