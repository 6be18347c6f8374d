//! The reference data that orders are looked up in: `price:SKU` (JSON text) and `stock:{SKU}` (a hash), each a pure function
//! of the SKU's number, so that an expectation needs no table.

/// A product, by its popularity rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sku(pub u32);

impl Sku {
    /// As orders name it.
    pub fn name(self) -> String {
        format!("sku-{:05}", self.0)
    }

    /// Price in cents: 1.00 to 999.99, scattered over the ranks.
    pub fn cents(self) -> u32 {
        100 + self.0.wrapping_mul(2_654_435_761) % 99_900
    }

    /// The price as the JSON number in Redis.
    pub fn amount(self) -> String {
        format!("{}.{:02}", self.cents() / 100, self.cents() % 100)
    }

    /// Pieces on hand; every seventh SKU has no stock record at all.
    pub fn on_hand(self) -> Option<u32> {
        (self.0 % 7 != 3).then(|| self.0.wrapping_mul(40_503) % 12)
    }

    /// What Redis holds for it: the price's key and text.
    pub fn price_entry(self, prefix: &str) -> (String, String) {
        (format!("{prefix}price:{}", self.name()), format!("{{\"amount\":{},\"currency\":\"EUR\"}}", self.amount()))
    }

    /// What Redis holds for it: the stock's key and the hash's only field.
    pub fn stock_entry(self, prefix: &str) -> Option<(String, String)> {
        self.on_hand().map(|pieces| (format!("{prefix}stock:{{{}}}", self.name()), pieces.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_price_is_a_json_number() {
        for rank in 0..5_000 {
            let amount: f64 = serde_json::from_str(&Sku(rank).amount()).expect("a JSON number");
            assert!((1.0..1_000.0).contains(&amount), "{amount}");
        }
        assert_eq!(Sku(3).on_hand(), None);
        assert!((0..100).any(|rank| Sku(rank).on_hand() == Some(0)), "some SKU is sold out");
    }
}
